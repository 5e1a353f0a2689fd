// How Node starts a server. What a request makes lives until its commit is on disk, and many are on their way at once: in V8's
// usual young generation much of it is still alive at each collection and has to be moved. bench/README.md has the figures.
export const SERVER_HEAP = ['--min-semi-space-size=32', '--max-semi-space-size=32']
