import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { createSplitter, type Frame, MAX_FRAME_BYTES } from './sse.ts'

const ENDS = ['\n', '\r', '\r\n']
/** Lines as providers and proxies write them, and as nobody should. */
const line = fc.oneof(
  fc.constantFrom(
    '',
    ':',
    ': keep-alive',
    'data',
    'data:',
    'data: [DONE]',
    'event: delta',
    'id: 7',
    'retry: 1',
  ),
  fc.string({ unit: 'grapheme', maxLength: 20 }).map((text) => `data: ${text.replace(/[\r\n]/g, '')}`),
  fc.constantFrom('data: {"a":"\u00e9\u{1f600}"}', 'data:{"b":"\u2028\u0085"}', '\ufeffdata: x', 'nonsense'),
)
const stream = fc
  .array(fc.tuple(line, fc.constantFrom(...ENDS)), { maxLength: 30 })
  .map((lines) => Buffer.from(lines.map(([text, end]) => text + end).join('')))
const cuts = fc.array(fc.nat(), { maxLength: 20 })

function piecesOf(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [0, ...at.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return places.slice(1).map((place, n) => bytes.subarray(places[n], place))
}
function read(pieces: readonly Buffer[]): Frame[] {
  const splitter = createSplitter()
  const frames = pieces.flatMap((piece) => splitter.push(piece))
  const rest = splitter.rest()
  return rest === undefined ? frames : [...frames, rest]
}
/** What they say: an empty frame says nothing. */
const said = (frames: readonly Frame[]) =>
  frames.filter(({ data }) => data !== '').map(({ event, data }) => ({ event, data }))

/** As the standard reads it, all of it at once and with nothing clever. */
function plainly(bytes: Buffer): { event: string | undefined; data: string }[] {
  const lines = bytes
    .toString('utf8')
    .replace(/^\ufeff/, '')
    .split(/\r\n|\r|\n/)
  const all: { event: string | undefined; data: string }[] = []
  let event: string | undefined
  let data: string[] = []
  for (const text of lines) {
    const [, name, value = ''] = /^([^:]*)(?:: ?(.*))?$/su.exec(text) as RegExpExecArray
    if (text === '') {
      if (data.join('\n') !== '') all.push({ event, data: data.join('\n') })
      event = undefined
      data = []
    } else if (name === 'data') data.push(value)
    else if (name === 'event') event = value
  }
  if (data.join('\n') !== '') all.push({ event, data: data.join('\n') })
  return all
}

describe('frames of a stream', () => {
  test('are as the standard reads them, wherever the stream is cut, and all bytes go on', () => {
    fc.assert(
      fc.property(stream, cuts, (bytes, at) => {
        const whole = read([bytes])
        const cut = read(piecesOf(bytes, at))
        assert.deepEqual(said(cut), plainly(bytes))
        assert.deepEqual(said(whole), plainly(bytes))
        for (const frames of [whole, cut])
          assert.deepEqual(Buffer.concat(frames.map(({ bytes }) => bytes)), bytes)
      }),
      { numRuns: 2_000 },
    )
  })

  test('are as the standard reads them byte by byte', () => {
    fc.assert(
      fc.property(stream, (bytes) => {
        const frames = read([...bytes].map((byte) => Buffer.from([byte])))
        assert.deepEqual(said(frames), plainly(bytes))
        assert.deepEqual(Buffer.concat(frames.map(({ bytes }) => bytes)), bytes)
      }),
    )
  })

  test('that never end are cut off, whether they come in large pieces or in small ones', () => {
    for (const size of [64 * 1024, 2 * MAX_FRAME_BYTES]) {
      const splitter = createSplitter()
      const piece = Buffer.alloc(size, 'x')
      assert.throws(() => {
        for (let sent = 0; sent <= 2 * MAX_FRAME_BYTES; sent += size) splitter.push(piece)
      }, RangeError)
    }
  })

  test('that come in very many pieces are put together', () => {
    const splitter = createSplitter()
    const text = `data: ${'abcdefghij'.repeat(10_000)}`
    for (const sign of text) assert.deepEqual(splitter.push(Buffer.from(sign)), [])
    const [frame, ...more] = splitter.push(Buffer.from('\n\n'))
    assert.equal(frame?.data, text.slice(6))
    assert.equal(frame?.bytes.toString(), `${text}\n\n`)
    assert.deepEqual(more, [])
  })
})
