"""Names of the Hugging Face Hub to files on disk, each at one commit. With the judge and servers the only room that may
open a socket, and only for a name that is not in the cache yet."""
