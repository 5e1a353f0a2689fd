/** Server-sent events as they pass: frames are looked at whole, and go on as the bytes they came in. */

export interface Frame {
  readonly event: string | undefined
  readonly data: string
  /** With the empty line that ends it. */
  readonly bytes: Buffer
}

/** A frame longer than this is no event of a model, not even a picture: the upstream is cut off. */
export const MAX_FRAME_BYTES = 16 * 1024 * 1024

const LF = 0x0a
const CR = 0x0d

/**
 * Splits a stream at its empty lines (WHATWG HTML, section 9.2.6: lines end in LF, CR or CRLF). `push` answers the frames that
 * a piece completes; `rest` what was left without an empty line when the stream ended.
 */
export function createSplitter() {
  let kept: Buffer[] = []
  let size = 0
  /** Where the line that is being read stands: whether nothing is in it yet, and whether a CR was just seen. */
  let isLineEmpty = true
  let afterCr = false

  function frame(last: Buffer): Frame {
    const bytes = kept.length === 0 ? last : Buffer.concat([...kept, last])
    kept = []
    size = 0
    return frameOf(bytes)
  }

  return {
    push(piece: Buffer): Frame[] {
      const frames: Frame[] = []
      let from = 0
      for (let at = 0; at < piece.length; at++) {
        const byte = piece[at]
        if (byte === LF && afterCr) {
          // The second half of a CRLF; where it ended an empty line, the frame has gone without it.
          afterCr = false
          continue
        }
        afterCr = byte === CR
        if (byte !== LF && byte !== CR) {
          isLineEmpty = false
          continue
        }
        if (!isLineEmpty) {
          isLineEmpty = true
          continue
        }
        // A CRLF goes whole where both are there.
        const end = byte === CR && piece[at + 1] === LF ? at + 2 : at + 1
        frames.push(frame(piece.subarray(from, end)))
        if (end === at + 2) {
          at++
          afterCr = false
        }
        from = end
      }
      if (from < piece.length) {
        const left = piece.subarray(from)
        kept.push(left)
        size += left.length
        if (size > MAX_FRAME_BYTES) throw new RangeError('an event of the upstream is too long')
      }
      return frames
    },
    rest(): Frame | undefined {
      return size === 0 ? undefined : frame(Buffer.alloc(0))
    },
  }
}

function frameOf(bytes: Buffer): Frame {
  const text = bytes.toString('utf8')
  let event: string | undefined
  let data: string | undefined
  for (const line of text.split(/\r\n|\n|\r/)) {
    if (line.startsWith('data:')) {
      const value = line.slice(line[5] === ' ' ? 6 : 5)
      data = data === undefined ? value : `${data}\n${value}`
    } else if (line.startsWith('event:')) event = line.slice(line[6] === ' ' ? 7 : 6)
  }
  return { event, data: data ?? '', bytes }
}
