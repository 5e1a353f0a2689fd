/**
 * Checks a document against the schema, and says for each mistake what would be right.
 *
 * A validator's own errors name keywords of the schema ("must match pattern") and, for a union, every variant that did
 * not fit. This walk complains once, in the words of the schema's `expects`; a test holds its verdicts to TypeBox's.
 */
import { type Complain, pointer, quote } from './complaints.ts'

/** What of JSON Schema the policy's schema uses. */
export interface Shape {
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly anyOf?: readonly Shape[]
  readonly pattern?: string
  readonly minLength?: number
  readonly maxLength?: number
  readonly minimum?: number
  readonly maximum?: number
  readonly items?: Shape
  readonly minItems?: number
  readonly maxItems?: number
  readonly properties?: Readonly<Record<string, Shape>>
  readonly patternProperties?: Readonly<Record<string, Shape>>
  readonly required?: readonly string[]
  readonly minProperties?: number
  readonly maxProperties?: number
  readonly expects?: string
  readonly expectsKey?: string
  readonly chosenBy?: readonly string[]
}

type Plain = Readonly<Record<string, unknown>>

/**
 * Complains of everything in `value` that the shape does not allow, and answers what is left without it, so that the
 * rest can still be checked for its meaning: an optional field that is wrong is dropped, a list keeps `undefined` where an
 * item was (indices stay true), and what lacks something required is dropped whole (`undefined`).
 */
export function checkShape(shape: Shape, value: unknown, path: string, complain: Complain): unknown {
  if (shape.chosenBy !== undefined) return checkVariant(shape, value, path, complain)
  if (shape.type === 'array') return checkList(shape, value, path, complain)
  if (shape.properties !== undefined) return checkFields(shape, value, path, complain)
  if (shape.patternProperties !== undefined) return checkRecord(shape, value, path, complain)
  if (fits(shape, value)) return value
  complain(path, `must be ${shape.expects ?? shape.type}, not ${quote(value)}`)
  return undefined
}

function checkVariant(shape: Shape, value: unknown, path: string, complain: Complain): unknown {
  const keys = shape.chosenBy ?? []
  if (!isPlain(value)) return complain(path, `must be an object with ${choice(keys)}, not ${quote(value)}`)
  const present = keys.filter((key) => Object.hasOwn(value, key))
  const variant = shape.anyOf?.find((one) => one.properties?.[present[0] ?? ''] !== undefined)
  if (variant === undefined)
    return complain(path, `must have ${choice(keys)}${meant(Object.keys(value), keys)}`)
  if (present.length > 1) return complain(path, `must have only one of ${ticked(present)}`)
  return checkFields(variant, value, path, complain)
}

function checkFields(shape: Shape, value: unknown, path: string, complain: Complain): unknown {
  const properties = shape.properties ?? {}
  if (!isPlain(value)) return complain(path, `must be an object, not ${quote(value)}`)
  const kept: Record<string, unknown> = {}
  let whole = true
  for (const key of shape.required ?? []) {
    if (Object.hasOwn(value, key)) continue
    complain(path, `\`${key}\` is missing: ${requirement(properties[key])}`)
    whole = false
  }
  for (const [key, entry] of Object.entries(value)) {
    const known = Object.hasOwn(properties, key) ? properties[key] : undefined
    if (known === undefined) {
      complain(pointer(path, key), unknownField(key, Object.keys(properties)))
      continue
    }
    const checked = checkShape(known, entry, pointer(path, key), complain)
    if (checked !== undefined) kept[key] = checked
    else if (shape.required?.includes(key)) whole = false
  }
  return whole ? kept : undefined
}

function checkRecord(shape: Shape, value: unknown, path: string, complain: Complain): unknown {
  const [pattern, entryShape] = Object.entries(shape.patternProperties ?? {})[0] ?? ['^', {}]
  if (!isPlain(value)) return complain(path, `must be an object, not ${quote(value)}`)
  const entries = Object.entries(value)
  if (entries.length < (shape.minProperties ?? 0)) complain(path, 'must not be empty')
  if (entries.length > (shape.maxProperties ?? Infinity)) {
    complain(path, `must have at most ${shape.maxProperties} entries, not ${entries.length}`)
    return undefined
  }
  const named = regex(pattern)
  const kept: Record<string, unknown> = {}
  for (const [key, entry] of entries) {
    const at = pointer(path, key)
    if (!named.test(key)) complain(at, `${quote(key)} must be ${shape.expectsKey ?? 'another name'}`)
    const checked = checkShape(entryShape, entry, at, complain)
    if (checked !== undefined && named.test(key)) kept[key] = checked
  }
  return kept
}

function checkList(shape: Shape, value: unknown, path: string, complain: Complain): unknown {
  if (!Array.isArray(value)) return complain(path, `must be a list, not ${quote(value)}`)
  if (value.length < (shape.minItems ?? 0)) complain(path, 'must not be an empty list')
  if (value.length > (shape.maxItems ?? Infinity)) {
    complain(path, `must have at most ${shape.maxItems} items, not ${value.length}`)
    return undefined
  }
  return value.map((item, index) => checkShape(shape.items ?? {}, item, pointer(path, index), complain))
}

/** Whether a leaf's value is one that the shape allows. */
function fits(shape: Shape, value: unknown): boolean {
  if (shape.anyOf !== undefined) return shape.anyOf.some((one) => fits(one, value))
  if (shape.enum !== undefined) return shape.enum.includes(value)
  if (shape.type === 'string') {
    if (typeof value !== 'string') return false
    if (value.length < (shape.minLength ?? 0) || value.length > (shape.maxLength ?? Infinity)) return false
    return shape.pattern === undefined || regex(shape.pattern).test(value)
  }
  if (shape.type === 'number' || shape.type === 'integer') {
    if (typeof value !== 'number' || !Number.isFinite(value)) return false
    if (shape.type === 'integer' && !Number.isInteger(value)) return false
    return value >= (shape.minimum ?? -Infinity) && value <= (shape.maximum ?? Infinity)
  }
  return shape.type === typeof value
}

export function isPlain(value: unknown): value is Plain {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const compiled = new Map<string, RegExp>()
/** Only patterns of the schema come here, so the map stays small. */
function regex(pattern: string): RegExp {
  const known = compiled.get(pattern)
  if (known !== undefined) return known
  const fresh = new RegExp(pattern, 'u')
  compiled.set(pattern, fresh)
  return fresh
}

const ticked = (names: readonly string[]): string => names.map((name) => `\`${name}\``).join(', ')
const choice = (keys: readonly string[]): string => `one of ${ticked(keys)}`

function requirement(shape: Shape | undefined): string {
  if (shape?.expects !== undefined) return shape.expects
  if (shape?.type === 'array') return 'a list'
  return 'an object'
}

function unknownField(key: string, known: readonly string[]): string {
  const near = nearest(key, known)
  return `is not known here; ${near === undefined ? `known are ${ticked(known)}` : `did you mean \`${near}\`?`}`
}

/** Names the known word that is nearest to one of those written, where one is near. */
function meant(written: readonly string[], known: readonly string[]): string {
  for (const word of written) {
    const near = nearest(word, known)
    if (near !== undefined) return `; did you mean \`${near}\`, where \`${word}\` is written?`
  }
  return ''
}

function nearest(word: string, known: readonly string[]): string | undefined {
  const typo = Math.min(2, Math.floor(word.length / 3))
  return known.find((candidate) => distance(word.toLowerCase().replaceAll('-', '_'), candidate) <= typo)
}

/** Levenshtein distance, or 3 where it is surely more than 2. */
function distance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2 || a.length < 3) return 3
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const swapped = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(swapped, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 3
}
