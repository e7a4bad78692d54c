"""Name -> class, filled by importing a folder; the constructor's signature is the schema of the YAML."""

import importlib
import inspect
import logging
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from facelab.config import check_converted, check_numbers, first_error, shown
from facelab.errors import ConfigError, did_you_mean

T = TypeVar("T")
C = TypeVar("C", bound=type)

CHECKS = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)

ALL_REGISTRIES: dict[str, "Registry[Any]"] = {}


class Registry(Generic[T]):
    """Classes of one kind by their exact names.

    The registry fills itself on first use: it imports every module of ``package`` and every entry point of the group
    ``facelab.<kind>s``, so third parties add entries without editing this project.

    Args:
        kind: What is registered, in the singular: ``head``, ``backbone`` …; used in messages and as the entry-point
            group.
        package: The package whose modules register themselves when imported, for example ``facelab.head``.
        supplied: Parameters of constructors that the program gives, so that lists and messages do not offer them.
    """

    def __init__(self, kind: str, package: str, supplied: Iterable[str] = ()) -> None:
        self.kind = kind
        self.package = package
        self._supplied = frozenset(supplied)
        self._classes: dict[str, type[T]] = {}
        self._old: dict[str, tuple[str, str]] = {}  # old name -> present name, version without the old one
        self._said: set[str] = set()
        self._filled = False
        ALL_REGISTRIES[kind] = self

    def register(self, name: str, *, old: Mapping[str, str] | None = None) -> Callable[[C], C]:
        """Class decorator that adds the class under ``name``.

        Args:
            name: Its name in configurations.
            old: Names that it had, each with the version in which that name ends, such as ``{"Arc": "0.3"}``; they
                work until then, are not listed, and the first use of each is answered by a warning.

        Raises:
            ConfigError: If the name is taken; the message says by whom.
        """

        def add(cls: C) -> C:
            self._old |= {former: (name, end) for former, end in (old or {}).items()}
            owner = self._classes.get(name)
            if owner is not None and (owner.__module__, owner.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ConfigError(
                    f"{self.kind} '{name}' is already registered by {owner.__module__}.{owner.__qualname__}; "
                    f"{cls.__module__}.{cls.__qualname__} needs another name."
                )
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        """All names, sorted."""
        self._fill()
        return sorted(self._classes)

    def __contains__(self, name: object) -> bool:
        """Whether ``name`` is registered."""
        self._fill()
        return name in self._classes or name in self._old

    def present_name(self, name: str) -> str:
        """The name that an entry has today; whoever uses an old one is told so once."""
        self._fill()
        if name in self._classes or name not in self._old:
            return name
        present, end = self._old[name]
        if name not in self._said:
            self._said.add(name)
            logging.getLogger(__name__).warning(
                f"{self.kind} '{name}' is called '{present}' now; the old name works until version {end}."
            )
        return present

    def get(self, name: str) -> type[T]:
        """The class registered under ``name``.

        Raises:
            ConfigError: If there is none; the message suggests the nearest name.
        """
        name = self.present_name(name)
        if name not in self._classes:
            known = ", ".join(self.names()) or "none"
            raise ConfigError(f"unknown {self.kind} '{name}'.{did_you_mean(name, self._classes)} Known: {known}.")
        return self._classes[name]

    def parameters(self, name: str) -> dict[str, inspect.Parameter]:
        """The constructor's parameters of ``name`` with evaluated annotations, without ``self``."""
        cls = self.get(name)
        hints = get_type_hints(cls.__init__, include_extras=True)
        signature = inspect.signature(cls)
        return {
            key: parameter.replace(annotation=hints.get(key, Any))
            for key, parameter in signature.parameters.items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The parameters of ``name`` that are the user's to set."""
        return {key: value for key, value in self.parameters(name).items() if key not in self._supplied}

    def build(self, name: str, options: Mapping[str, Any] | None = None, **supplied: Any) -> T:
        """Construct ``name`` from YAML ``options`` and from what the program supplies.

        Args:
            name: A registered name.
            options: Keyword arguments as read from YAML; unknown ones are refused, values are checked and converted to
                the annotated types.
            supplied: Arguments that the program knows (``num_classes``, ``feat_dim`` …). Those that the constructor
                does not take are left out; where ``options`` gives one too, the two must agree.

        Raises:
            ConfigError: If the name or an option is unknown, has a wrong type, is missing, or contradicts ``supplied``.
        """
        parameters = self.parameters(name)
        known = {key: value for key, value in supplied.items() if key in parameters}
        checked = self.check(name, options or {})
        for key in checked.keys() & known.keys():
            if checked[key] != known[key]:
                raise ConfigError(
                    f"{self.kind} '{name}' option '{key}' is {checked[key]!r}, but {known[key]!r} follows from the "
                    "rest of the configuration; leave it out."
                )
        arguments = {**checked, **known}
        missing = [key for key, p in parameters.items() if p.default is p.empty and key not in arguments]
        if missing:
            raise ConfigError(f"{self.kind} '{name}' needs the option '{missing[0]}'.")
        return self.get(name)(**arguments)

    def check(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as read from YAML, converted to the annotated types; nothing is constructed.

        Raises:
            ConfigError: If the name or an option is unknown, or a value has a wrong type.
        """
        parameters = self.parameters(name)
        return {key: self._check(name, key, value, parameters) for key, value in options.items()}

    def _check(self, name: str, key: str, value: Any, parameters: Mapping[str, inspect.Parameter]) -> Any:
        if key not in parameters:
            options = self.options(name)
            raise ConfigError(
                f"{self.kind} '{name}' has no option '{key}'.{did_you_mean(key, options)} "
                f"Options: {', '.join(options) or 'none'}."
            )
        annotation = parameters[key].annotation
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=CHECKS)
        except PydanticUserError:  # types that carry their own pydantic configuration need none
            adapter = TypeAdapter(annotation)
        try:
            check_numbers(value, key)
            checked = adapter.validate_python(value)
            check_converted(value, checked, key)
        except ValidationError as error:
            first, place = first_error(value, error)
            path = ".".join(filter(None, (key, place)))
            raise ConfigError(
                f"{self.kind} '{name}' option '{path}' is {shown(first['input'])}: {first['msg']}."
            ) from None
        except ValueError as error:
            raise ConfigError(f"{self.kind} '{name}' option {error}.") from None
        return checked

    def _fill(self) -> None:
        if self._filled:
            return
        self._filled = True  # first, because the imported modules come back here
        try:
            self._import_all()
        except BaseException:
            self._filled = False  # so that the next question is not answered by half of the names
            raise

    def _import_all(self) -> None:
        package = importlib.import_module(self.package)
        for module in pkgutil.walk_packages(package.__path__, f"{self.package}."):
            importlib.import_module(module.name)
        for entry in entry_points(group=f"facelab.{self.kind}s"):
            _load(entry)


def _load(entry: EntryPoint) -> None:
    try:
        entry.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        package = f"the package '{entry.dist.name}'" if entry.dist else "an installed package"
        raise ConfigError(
            f"cannot import '{entry.value}', which {package} names as an entry point of '{entry.group}': {error}. "
            "Mend or uninstall the package."
        ) from error
