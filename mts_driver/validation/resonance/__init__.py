"""How far the outer step of a teacher/student pair can go on a given system, measured."""
