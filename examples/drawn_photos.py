"""Photos of drawn people, as a friend's folder might hold them: each face somewhere in a scene, turned and scaled.

python examples/drawn_photos.py [PEOPLE_TO_TRAIN_ON PEOPLE_TO_TEST]     (ten to test at least: two in each fold)
writes photos/train and photos/test, one folder a person, and pairs.csv, a list of pairs of the latter's crops.
"""

import random
import sys
from pathlib import Path

import cv2
import numpy as np

from facelab.data.synthetic.source import SyntheticFaces

WIDTH, HEIGHT = 400, 300
PER_PERSON = 6
FOLDS = 5


def photo(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A face, (112, 112, 3), on a blurred wall."""
    wall = rng.integers(60, 200, (6, 8, 3)).astype(np.uint8)
    scene = cv2.resize(wall, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    move = cv2.getRotationMatrix2D((56, 56), rng.uniform(-25, 25), rng.uniform(0.8, 1.8))
    move[:, 2] += (rng.uniform(110, 290) - 56, rng.uniform(110, 190) - 56)
    return cv2.warpAffine(face, move, (WIDTH, HEIGHT), scene, cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)


def write(split: str, people: int) -> dict[int, list[str]]:
    """The photos of one split; the names of each person's crops."""
    rng = np.random.default_rng(0)
    faces = SyntheticFaces(identities=people, per_identity=PER_PERSON, size=112, split=split)
    crops: dict[int, list[str]] = {}
    for row, label in enumerate(faces.labels.tolist()):
        path = Path("photos", split, f"person{label:03}", f"{row}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photo(faces.read(row), rng)[:, :, ::-1])  # OpenCV writes BGR
        crops.setdefault(label, []).append(f"{path.parent.name}/{row}.png")
    return crops


def main(train: int = 60, test: int = 30) -> None:
    """Write everything."""
    write("train", train)
    people = list(write("test", test).values())
    chance = random.Random(0)
    with Path("pairs.csv").open("w") as pairs:
        for pair in range(10 * test):
            fold = pair % FOLDS
            one, other = chance.sample(people[fold::FOLDS], 2)  # no person is in two folds
            print(*chance.sample(one, 2), 1, fold, sep=",", file=pairs)
            print(chance.choice(one), chance.choice(other), 0, fold, sep=",", file=pairs)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
