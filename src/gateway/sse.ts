/** Server-sent events as they pass: frames are looked at whole, and go on as the bytes they came in. */

export interface Frame {
  readonly event: string | undefined
  readonly data: string
  /** With the empty line that ends it. */
  readonly bytes: Buffer
}

/** A frame longer than this is no event of a model, not even a picture: the upstream is cut off. */
export const MAX_FRAME_BYTES = 16 * 1024 * 1024

/** Small pieces that are put together. */
const PIECES = 1_024

const LF = 0x0a
const CR = 0x0d
/** A byte order mark may stand before a stream, and is no part of its first line. */
const MARK = Buffer.from('\ufeff')

/**
 * Splits a stream at its empty lines (WHATWG HTML, section 9.2.6: lines end in LF, CR or CRLF). `push` answers the frames that
 * a piece completes; `rest` what was left without an empty line when the stream ended.
 */
export function createSplitter() {
  let kept: Buffer[] = []
  /** How many of them are blocks, made of many small pieces: a piece for itself weighs a hundred bytes. */
  let blocks = 0
  let size = 0
  /** Where the line that is being read stands: whether nothing is in it yet, and whether a CR was just seen. */
  let isLineEmpty = true
  let afterCr = false
  let isFirst = true

  function frame(last: Buffer): Frame {
    const bytes = kept.length === 0 ? last : Buffer.concat([...kept, last])
    kept = []
    blocks = 0
    size = 0
    const isMarked = isFirst && bytes.subarray(0, MARK.length).equals(MARK)
    isFirst = false
    return frameOf(bytes, isMarked ? bytes.toString('utf8', MARK.length) : bytes.toString('utf8'))
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
        if (kept.length - blocks >= PIECES) kept.push(Buffer.concat(kept.splice(blocks++)))
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

/** A frame that is written anew; its data is one line. */
export const bytesOf = (event: string | undefined, data: string): Buffer =>
  Buffer.from(`${event === undefined ? '' : `event: ${event}\n`}data: ${data}\n\n`)

function frameOf(bytes: Buffer, text: string): Frame {
  let event: string | undefined
  let data: string | undefined
  for (const line of text.split(/\r\n|\n|\r/)) {
    const value = fieldIn(line, 'data')
    if (value !== undefined) data = data === undefined ? value : `${data}\n${value}`
    else event = fieldIn(line, 'event') ?? event
  }
  return { event, data: data ?? '', bytes }
}

/** A field may stand without a colon: then it is empty. */
function fieldIn(line: string, name: string): string | undefined {
  if (!line.startsWith(name)) return undefined
  if (line.length === name.length) return ''
  if (line[name.length] !== ':') return undefined
  return line.slice(line[name.length + 1] === ' ' ? name.length + 2 : name.length + 1)
}
