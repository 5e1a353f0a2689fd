// How Node starts a server. What a request makes lives until its commit is on disk, and many are on their way at once: of V8's
// usual young generation so much is still alive at each collection that moving it takes more time than all the rest of them.
// bench/README.md has the figures.
export const SERVER_HEAP = ['--min-semi-space-size=32', '--max-semi-space-size=32']
