"""Operations that are one in a program. Each function looks at one, and says if it changed it."""
