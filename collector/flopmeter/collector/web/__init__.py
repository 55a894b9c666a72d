"""The HTTP port: who may ask, in what time and size; the page's files. What is answered comes from `api`."""
