"""The process that stands between a model server and the kernels that use it, and what both sides know of it on disk.

It is started by whichever kernel needs the server first, follows the leases of all of them, and ends the server with the
last. It must start within a few hundredths of a second, so nothing here imports more than the standard library and,
where a system lacks `/proc`, psutil.
"""
