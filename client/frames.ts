/** Server-sent events (HTML Standard, 9.2.6) out of bytes, wherever those are cut. */
export interface Frame {
  /** Of the last block that had one, this one included. */
  readonly id: string
  readonly event: string
  readonly data: string
}

export interface FrameReader {
  /** The blocks with data that these bytes end. What is left waits for more. */
  read(bytes: Uint8Array): readonly Frame[]
  /** The last id that came, with data or without. */
  readonly id: string | undefined
  /** How long to wait before coming back, where that was said. */
  readonly retryMs: number | undefined
}

export function createFrameReader(): FrameReader {
  const decoder = new TextDecoder()
  let rest = ''
  let id: string | undefined
  let retryMs: number | undefined
  let newId: string | undefined
  let event = ''
  let data: string[] = []

  function field(line: string): void {
    const colon = line.indexOf(':')
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
    if (name === 'data') data.push(value)
    else if (name === 'event') event = value
    else if (name === 'id' && !value.includes('\0')) newId = value
    else if (name === 'retry' && /^\d+$/.test(value)) retryMs = Number(value)
  }

  return {
    read(bytes) {
      // A return at the very end may be the first half of a line's end.
      const lines = (rest + decoder.decode(bytes, { stream: true })).split(/\r\n|\n|\r(?!$)/)
      rest = lines.pop() ?? ''
      const frames: Frame[] = []
      for (const line of lines) {
        if (line !== '') {
          field(line)
          continue
        }
        id = newId ?? id
        if (data.length > 0) frames.push({ id: id ?? '', event: event || 'message', data: data.join('\n') })
        newId = undefined
        event = ''
        data = []
      }
      return frames
    },
    get id() {
      return id
    },
    get retryMs() {
      return retryMs
    },
  }
}
