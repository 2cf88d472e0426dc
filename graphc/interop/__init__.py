"""Exchange with other software's formats. Import the submodule of the format; nothing is loaded from here."""
