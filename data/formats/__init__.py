"""Files as they come from outside: images, archives, lists, records; and writing them."""
