"""The view in Qt: imported when there is a window of this toolkit, and only then."""
