"""What each pool serves and how loaded it is; the only room that asks the pools' servers."""
