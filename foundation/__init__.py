"""What every other package stands on: errors, atomic files, named random streams. Imports only the standard library."""
