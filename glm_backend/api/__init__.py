"""Routes beside the pages, for programs and for whoever watches over the process."""
