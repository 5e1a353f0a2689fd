/**
 * Structured Field Values for HTTP, RFC 9651: the text of a header as data, and back, as strict as the RFC demands, so that
 * tests prove what is sent by reading it as a strict client would.
 *
 * Two leniencies, both on purpose: section 4.2.7 asks parsers not to fail on a byte sequence whose base64 lacks its
 * padding or has non-zero pad bits, and the `pk` samples of draft-ietf-httpapi-ratelimit-headers are such. What is
 * written here is always canonical.
 */

/** A number is an Integer; the types that JavaScript does not tell apart carry their name. */
export type BareItem =
  | number
  | string
  | boolean
  | Uint8Array
  | { readonly decimal: number }
  | { readonly token: string }
  | { readonly date: number }
  | { readonly display: string }
export type Parameters = readonly (readonly [key: string, value: BareItem])[]
export type Item = readonly [value: BareItem, parameters: Parameters]
export type InnerList = readonly [items: readonly Item[], parameters: Parameters]
export type Member = Item | InnerList
export type List = readonly Member[]
export type Dictionary = readonly (readonly [key: string, member: Member])[]

/** The text is no structured field, or the value cannot be one. */
export class StructuredFieldError extends Error {
  override readonly name = 'StructuredFieldError'
}

const KEY = /^[a-z*][a-z0-9_.*-]*$/
const TOKEN = /^[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*$/
const MAX_INTEGER = 999_999_999_999_999

// ── Writing, section 4.1 ───────────────────────────────────────────────────────────────────────────────────────────

/** Writes a List; the empty List is an absent field, so it has no text. */
export function writeList(list: List): string {
  return list.map(writeMember).join(', ')
}

export function writeDictionary(dictionary: Dictionary): string {
  return dictionary
    .map(([key, member]) =>
      member[0] === true
        ? writeKey(key) + writeParameters(member[1])
        : `${writeKey(key)}=${writeMember(member)}`,
    )
    .join(', ')
}

export function writeItem([value, parameters]: Item): string {
  return writeBare(value) + writeParameters(parameters)
}

function writeMember(member: Member): string {
  if (!isInnerList(member)) return writeItem(member)
  return `(${member[0].map(writeItem).join(' ')})${writeParameters(member[1])}`
}

function isInnerList(member: Member): member is InnerList {
  return Array.isArray(member[0])
}

function writeParameters(parameters: Parameters): string {
  let text = ''
  for (const [key, value] of parameters) {
    text += value === true ? `;${writeKey(key)}` : `;${writeKey(key)}=${writeBare(value)}`
  }
  return text
}

function writeKey(key: string): string {
  if (!KEY.test(key)) throw new StructuredFieldError(`${JSON.stringify(key)} is not a key`)
  return key
}

function writeBare(value: BareItem): string {
  if (typeof value === 'number') return writeInteger(value)
  if (typeof value === 'string') return writeString(value)
  if (typeof value === 'boolean') return value ? '?1' : '?0'
  if (value instanceof Uint8Array) return writeBytes(value)
  if ('decimal' in value) return writeDecimal(value.decimal)
  if ('date' in value) return `@${writeInteger(value.date)}`
  if ('display' in value) return writeDisplay(value.display)
  if (!TOKEN.test(value.token))
    throw new StructuredFieldError(`${JSON.stringify(value.token)} is not a token`)
  return value.token
}

function writeInteger(value: number): string {
  if (!Number.isInteger(value) || Math.abs(value) > MAX_INTEGER) {
    throw new StructuredFieldError(`${value} is not an integer of at most 15 digits`)
  }
  return String(value)
}

/** Writes a String: printable ASCII in quotes. */
export function writeString(value: string): string {
  if (!isPrintable(value)) throw new StructuredFieldError('a string holds printable ASCII only')
  return `"${value.replace(/["\\]/g, '\\$&')}"`
}

/** Writes a Byte Sequence: base64 between colons. */
export function writeBytes(value: Uint8Array): string {
  return `:${Buffer.from(value.buffer, value.byteOffset, value.length).toString('base64')}:`
}

/** Whether a text can be a String: printable ASCII. */
export function isPrintable(value: string): boolean {
  return /^[\x20-\x7e]*$/.test(value)
}

/** Rounds to three places, half to even, on the decimal digits that the number prints as. */
function writeDecimal(value: number): string {
  const text = String(Math.abs(value))
  const [whole = '', fraction = ''] = (text.includes('e') ? Math.abs(value).toFixed(12) : text).split('.')
  const rest = fraction.slice(3)
  let thousandths = BigInt(whole + fraction.slice(0, 3).padEnd(3, '0'))
  const half = /^50*$/.test(rest)
  if (half ? thousandths % 2n === 1n : rest >= '5') thousandths += 1n
  const digits = String(thousandths).padStart(4, '0')
  if (digits.length > 15) throw new StructuredFieldError(`${value} has more than 12 digits before the point`)
  const places = digits.slice(-3).replace(/0{1,2}$/, '')
  return `${value < 0 && thousandths > 0n ? '-' : ''}${digits.slice(0, -3)}.${places}`
}

function writeDisplay(value: string): string {
  if (!value.isWellFormed()) throw new StructuredFieldError('a display string is valid Unicode')
  let text = '%"'
  for (const byte of Buffer.from(value)) {
    const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25 && byte !== 0x22
    text += plain ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, '0')}`
  }
  return `${text}"`
}

// ── Reading, section 4.2 ───────────────────────────────────────────────────────────────────────────────────────────

/** Reads a List. Throws `StructuredFieldError` for anything else. */
export function parseList(text: string): List {
  return whole(text, (input) => {
    const members: Member[] = []
    while (!input.ended()) {
      members.push(readMember(input))
      if (!nextMember(input)) break
    }
    return members
  })
}

/** Reads a Dictionary; of a key that comes twice, the last value stands at the first place. */
export function parseDictionary(text: string): Dictionary {
  return whole(text, (input) => {
    const members = new Map<string, Member>()
    while (!input.ended()) {
      const key = readKey(input)
      members.set(key, input.take('=') ? readMember(input) : [true, readParameters(input)])
      if (!nextMember(input)) break
    }
    return [...members]
  })
}

export function parseItem(text: string): Item {
  return whole(text, readItem)
}

interface Input {
  readonly ended: () => boolean
  /** Steps over one character, if it is the next. */
  readonly take: (char: string) => boolean
  /** Steps over what a sticky pattern matches here. */
  readonly match: (pattern: RegExp) => string | undefined
  readonly fail: (wanted: string) => never
}

function whole<T>(text: string, read: (input: Input) => T): T {
  let at = 0
  const input: Input = {
    ended: () => at >= text.length,
    take(char) {
      if (text[at] !== char) return false
      at += 1
      return true
    },
    match(pattern) {
      pattern.lastIndex = at
      const found = pattern.exec(text)?.[0]
      at += found?.length ?? 0
      return found
    },
    fail(wanted) {
      throw new StructuredFieldError(`at ${at}: ${wanted} was expected`)
    },
  }
  input.match(/ */y)
  const value = read(input)
  input.match(/ */y)
  return input.ended() ? value : input.fail('the end')
}

/** After a member: true where another must follow. */
function nextMember(input: Input): boolean {
  input.match(/[ \t]*/y)
  if (input.ended()) return false
  if (!input.take(',')) input.fail('a comma')
  input.match(/[ \t]*/y)
  return input.ended() ? input.fail('a member after the comma') : true
}

function readMember(input: Input): Member {
  return input.take('(') ? readInnerList(input) : readItem(input)
}

function readInnerList(input: Input): InnerList {
  const items: Item[] = []
  for (;;) {
    const spaces = input.match(/ */y)
    if (input.take(')')) return [items, readParameters(input)]
    if (items.length > 0 && spaces === '') input.fail('a space or ")"')
    items.push(readItem(input))
  }
}

function readItem(input: Input): Item {
  return [readBare(input), readParameters(input)]
}

function readParameters(input: Input): Parameters {
  const parameters = new Map<string, BareItem>()
  while (input.take(';')) {
    input.match(/ */y)
    const key = readKey(input)
    parameters.set(key, input.take('=') ? readBare(input) : true)
  }
  return [...parameters]
}

function readKey(input: Input): string {
  return input.match(/[a-z*][a-z0-9_.*-]*/y) ?? input.fail('a key')
}

function readBare(input: Input): BareItem {
  const number = input.match(/-?\d[\d.]*/y)
  if (number !== undefined) return readNumber(number, input)
  const token = input.match(/[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*/y)
  if (token !== undefined) return { token }
  if (input.take('"')) return readString(input)
  if (input.take('?')) return (input.match(/[01]/y) ?? input.fail('0 or 1')) === '1'
  if (input.take(':')) return readBytes(input)
  if (input.take('@')) {
    const seconds = readNumber(input.match(/-?\d[\d.]*/y) ?? input.fail('a date'), input)
    return typeof seconds === 'number' ? { date: seconds } : input.fail('an integer')
  }
  if (input.take('%')) return readDisplay(input)
  return input.fail('an item')
}

function readNumber(text: string, input: Input): number | { readonly decimal: number } {
  // Minus zero is zero: an Integer has no sign of its own there.
  if (/^-?\d{1,15}$/.test(text)) return Number(text) + 0
  if (/^-?\d{1,12}\.\d{1,3}$/.test(text)) return { decimal: Number(text) }
  return input.fail('an integer of at most 15 digits, or a decimal of at most 12 and 3')
}

function readString(input: Input): string {
  const text = input.match(/(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*/y) ?? ''
  return input.take('"')
    ? text.replace(/\\(.)/g, '$1')
    : input.fail('a printable character or the closing quote')
}

function readBytes(input: Input): Uint8Array {
  const text = input.match(/[A-Za-z0-9+/]*={0,2}/y) ?? ''
  if (!input.take(':')) input.fail('base64 or the closing colon')
  // One digit beyond whole groups of four holds six bits: no byte.
  if (text.replaceAll('=', '').length % 4 === 1) input.fail('whole bytes')
  return new Uint8Array(Buffer.from(text, 'base64'))
}

function readDisplay(input: Input): BareItem {
  if (!input.take('"')) input.fail('a quote')
  const text = input.match(/(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*/y) ?? ''
  if (!input.take('"')) input.fail('a printable character, %xx or the closing quote')
  try {
    return { display: decodeURIComponent(text) }
  } catch {
    return input.fail('valid UTF-8')
  }
}
