/** How a stream came to its end: read to its end, failed at its source, or left by its reader. */
export type StreamEnd = 'done' | 'failed' | 'cutOff'

/**
 * The same stream, watched. `piece` sees everything that passes; `ended` is told once, before the reader sees the end, so that
 * whoever has read all may look at what became of it.
 */
export function watched<T>(
  stream: ReadableStream<T>,
  piece: (value: T) => void,
  ended: (how: StreamEnd) => Promise<void>,
): ReadableStream<T> {
  const reader = stream.getReader()
  return new ReadableStream<T>({
    async pull(controller) {
      let read: { readonly done: boolean; readonly value?: T | undefined }
      try {
        read = await reader.read()
        if (!read.done) piece(read.value as T)
      } catch (error) {
        await ended('failed')
        return controller.error(error)
      }
      if (!read.done) return controller.enqueue(read.value as T)
      await ended('done')
      controller.close()
    },
    async cancel(reason) {
      await ended('cutOff')
      // Its source may have ended already, for the same reason.
      await reader.cancel(reason).catch(() => {})
    },
  })
}
