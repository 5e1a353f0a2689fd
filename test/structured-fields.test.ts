// RFC 9651 by the working group's own cases: what must parse, what must not, and what each value is written as.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import {
  type BareItem,
  type Dictionary,
  type Item,
  type List,
  parseDictionary,
  parseItem,
  parseList,
  StructuredFieldError,
  writeDictionary,
  writeItem,
  writeList,
} from './structured-fields.ts'

interface Case {
  readonly name: string
  readonly raw?: readonly string[]
  readonly header_type: 'item' | 'list' | 'dictionary'
  readonly expected?: unknown
  readonly must_fail?: boolean
  readonly canonical?: readonly string[]
}
const fixture = new URL('fixtures/structured-field-tests.json.gz', import.meta.url)
const cases: Record<'parse' | 'write', readonly (readonly [file: string, Case])[]> = JSON.parse(
  gunzipSync(readFileSync(fixture)).toString(),
)

const PARSE = { item: parseItem, list: parseList, dictionary: parseDictionary }

/** A parsed value as the cases write it. Decimals are numbers there, and bytes are base32. */
function asCase(value: unknown): unknown {
  if (value instanceof Uint8Array) return { __type: 'binary', value: base32(value) }
  if (Array.isArray(value)) return value.map(asCase)
  if (typeof value !== 'object' || value === null) return value
  if ('decimal' in value) return value.decimal
  const [[type, inner] = []] = Object.entries(value)
  return { __type: type === 'display' ? 'displaystring' : type, value: inner }
}

/** The other way. JSON does not tell 1.0 from 1, so which numbers are decimals is taken from the text. */
function fromCase(value: unknown, decimals: boolean): unknown {
  if (Array.isArray(value)) return value.map((inner) => fromCase(inner, decimals))
  if (typeof value === 'number') return decimals || !Number.isInteger(value) ? { decimal: value } : value
  if (typeof value !== 'object' || value === null) return value
  const { __type: type, value: inner } = value as { __type: string; value: string & number }
  if (type === 'binary') return unbase32(inner)
  return { [type === 'displaystring' ? 'display' : type]: inner }
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
function base32(bytes: Uint8Array): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('')
  const text = (bits.match(/.{1,5}/g) ?? [])
    .map((five) => ALPHABET[Number.parseInt(five.padEnd(5, '0'), 2)])
    .join('')
  return text.padEnd(Math.ceil(text.length / 8) * 8, '=')
}
function unbase32(text: string): Uint8Array {
  const bits = [...text.replace(/=+$/, '')]
    .map((char) => ALPHABET.indexOf(char).toString(2).padStart(5, '0'))
    .join('')
  return Uint8Array.from(bits.match(/.{8}/g) ?? [], (byte) => Number.parseInt(byte, 2))
}

function write(type: Case['header_type'], value: unknown): string {
  if (type === 'list') return writeList(value as List)
  return type === 'item' ? writeItem(value as Item) : writeDictionary(value as Dictionary)
}

test('the working group’s cases are all here', () =>
  assert.equal(cases.parse.length + cases.write.length, 2135))

test('what must parse is read as expected, and what must not is refused', () => {
  for (const [file, { name, raw = [], header_type, expected, must_fail }] of cases.parse) {
    const read = () => PARSE[header_type](raw.join(', '))
    const where = `${file}: ${name}`
    if (must_fail) assert.throws(read, StructuredFieldError, where)
    else assert.deepEqual(asCase(read()), expected, where)
  }
})

test('what was read is written in its canonical form', () => {
  for (const [file, { name, raw = [], header_type, canonical = raw, must_fail }] of cases.parse) {
    if (must_fail) continue
    const text = write(header_type, PARSE[header_type](raw.join(', ')))
    assert.equal(text, canonical.join(', '), `${file}: ${name}`)
  }
})

test('values are written in canonical form, and what cannot be written is refused', () => {
  for (const [file, { name, header_type, expected, canonical = [], must_fail }] of cases.write) {
    const decimals = /^-?\d+\.\d/.test(canonical[0] ?? '') || /decimal/.test(name)
    const act = () => write(header_type, fromCase(expected, decimals))
    const where = `${file}: ${name}`
    if (must_fail) assert.throws(act, StructuredFieldError, where)
    else assert.equal(act(), canonical.join(', '), where)
  }
})

test('a display string must be valid Unicode, and a number an integer', () => {
  const bad: readonly BareItem[] = [{ display: '\ud800' }, 1.5, Number.NaN, Number.POSITIVE_INFINITY]
  for (const value of bad) assert.throws(() => writeItem([value, []]), StructuredFieldError)
})

test('the draft’s own samples parse; its two non-canonical `pk` samples are accepted on purpose', () => {
  const samples = JSON.parse(readFileSync(new URL('fixtures/ratelimit-fields.json', import.meta.url), 'utf8'))
  for (const text of [...samples.policy_ok, ...samples.limit_ok]) {
    const canonical = writeList(parseList(text)).replaceAll(', ', ',')
    const odd = /cHsdsRa894==|sdfjLJUOUH==/.test(text)
    if (odd) assert.notEqual(canonical, text)
    else assert.equal(canonical, text)
  }
})
