"""A page in the browser that shows runs while they go on; it reads their folders and changes nothing."""
