"""The view in customtkinter: imported when there is a window of this toolkit, and only then."""
