"""Fusions of operations. Each function examines one operation and says if it changed anything."""
