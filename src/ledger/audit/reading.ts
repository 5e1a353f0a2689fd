/**
 * Reads entries that nobody vouches for: whatever stands in them, the answer is an entry whose every field has its type, or
 * a sentence that says what is wrong.
 */
import { emptyBooks } from '../books.ts'
import {
  CHANGES,
  ENTRY_FORMAT,
  ENTRY_KINDS,
  type Entry,
  type EntryKind,
  type PrivatePart,
} from '../entries.ts'

type Check = (value: unknown) => boolean

const text: Check = (value) => typeof value === 'string'
const name: Check = (value) => typeof value === 'string' && value !== ''
const whole: Check = (value) => Number.isSafeInteger(value)
const count: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0
const number: Check = (value) => Number.isSafeInteger(value) && (value as number) > 0
const yes: Check = (value) => value === true
const orNull =
  (check: Check): Check =>
  (value) =>
    value === null || check(value)
const oneOf =
  (...values: readonly string[]): Check =>
  (value) =>
    values.includes(value as string)
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check)
const row =
  (...checks: readonly Check[]): Check =>
  (value) =>
    Array.isArray(value) &&
    value.length === checks.length &&
    checks.every((check, place) => check((value as readonly unknown[])[place]))
const recordOf =
  (check: Check): Check =>
  (value) => {
    if (!isRecord(value)) return false
    for (const field in value) if (!check(value[field])) return false
    return true
  }
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Field → check; a name that ends in `?` may be absent. */
type Fields = Readonly<Record<string, Check>>
/** The same, taken apart once: every entry of an account is held against one. */
type Shape = readonly (readonly [field: string, check: Check, optional: boolean])[]
const shape = (fields: Fields): Shape =>
  Object.entries(fields).map(([field, check]) =>
    field.endsWith('?') ? [field.slice(0, -1), check, true] : [field, check, false],
  )

const split = listOf(row(name, whole))
const quantities = recordOf(count)
const ledgerAccount: Check = (value) =>
  typeof value === 'string' &&
  (/^grant:./.test(value) ||
    ['issued', 'charged', 'expired', 'revoked', 'overage', 'absorbed', 'debt'].includes(value))

const HEAD: Fields = {
  seq: number,
  at: whole,
  'recorded_at?': whole,
  actor: name,
  'request?': name,
  'previous?': number,
  'private?': name,
}
const BODY: Readonly<Record<EntryKind, Fields>> = {
  usage: {
    op: oneOf('settle', 'record', 'expiry'),
    feature: name,
    'endpoint?': text,
    quantities,
    'started_at?': whole,
    'duration_ms?': whole,
    'estimated?': yes,
    request: name,
  },
  charge: {
    usage: number,
    policy: count,
    'line?': count,
    'stated?': yes,
    'unpriced?': listOf(name),
    cost: whole,
    cover: split,
    windows: listOf(row(name, orNull(name), count, whole)),
    'returned?': count,
    'corrects?': number,
    'total?': count,
    'refund?': text,
    'reason?': text,
    request: name,
  },
  balance: {
    from: ledgerAccount,
    to: ledgerAccount,
    amount: whole,
    reason: oneOf('issued', 'charge', 'refund', 'expired', 'revoked', 'rollover', 'repaid', 'summary'),
    'charge?': number,
  },
  decision: {
    op: oneOf('reserve', 'extend'),
    'step?': number,
    feature: name,
    plan: name,
    policy: count,
    outcome: oneOf('allow', 'partial'),
    reason: name,
    cost: count,
    granted: count,
    'estimate?': quantities,
    'granted_estimate?': quantities,
    from: split,
    expires_at: orNull(whole),
    limits: listOf(
      row(
        oneOf('rate', 'concurrency', 'budget', 'allowance', 'credits', 'overage'),
        text,
        orNull(name),
        text,
        whole,
        whole,
        whole,
        whole,
        orNull(whole),
        whole,
      ),
    ),
    request: name,
  },
  change: { what: oneOf(...CHANGES), detail: isRecord },
}
const ENTRY = new Map(ENTRY_KINDS.map((kind) => [kind, shape({ ...HEAD, ...BODY[kind] })]))

/** What `detail` of a change must have where the audit relies on it. */
const DETAIL: Readonly<Record<string, Fields>> = {
  account_created: { plan: name, zone: name },
  plan: { to: name },
  status: { to: name },
  zone: { to: name },
  override: {
    'by?': name,
    overrides: listOf(row(name, orNull(whole), orNull(whole))),
  },
  grant: {
    id: name,
    kind: name,
    amount: count,
    priority: whole,
    starts_at: whole,
    expires_at: orNull(whole),
    'features?': listOf(name),
  },
  revoke: { id: name },
  hold_closed: { cause: name, returned: count },
  erased: { dimension: name },
  checkpoint: { as_of: number, hash: name, grants: count, requests: count },
  retained: { before: whole, 'as_of?': number, 'hash?': name },
  reset: { window: name, 'by?': name, starts_at: whole, used: whole },
  policy: { version: number, text },
  key_created: { id: name, role: name },
  key_revoked: { id: name },
}
const DETAILS = new Map(Object.entries(DETAIL).map(([what, fields]) => [what, shape(fields)]))

/** The state of a checkpoint, row by row. */
const STATE = shape({
  recorded_at: whole,
  books: listOf(row(oneOf(...Object.keys(emptyBooks())), whole)),
  grants: listOf(
    row(
      ...[name, number, name, count, whole, whole, orNull(whole), orNull(listOf(name))],
      row(...Array.from({ length: 9 }, () => whole)),
      orNull(number),
    ),
  ),
  requests: listOf(
    row(
      ...[name, whole, count, orNull(number)],
      orNull(row(count, split, orNull(whole))),
      orNull(row(number, number, orNull(recordOf(text)), whole, whole, split)),
      orNull(name),
    ),
  ),
  windows: listOf(row(text, name, listOf(row(count, whole, whole, whole)), orNull(row(whole, whole)))),
  terms: row(orNull(name), orNull(name), orNull(name)),
  overrides: listOf(row(text, name, orNull(whole), orNull(whole))),
  erased_overrides: listOf(name),
  repaired: (value) => typeof value === 'boolean',
  checkpoint: orNull(number),
})
const state: Check = (value) => isRecord(value) && wrong(value, STATE) === undefined

const PRIVATE = shape({
  salt: name,
  subject: recordOf(text),
  'attributes?': recordOf(text),
  'scope?': recordOf(listOf(text)),
  'state?': state,
})

function wrong(value: Record<string, unknown>, fields: Shape): string | undefined {
  for (const [field, check, optional] of fields) {
    const found = value[field]
    if (!(optional && found === undefined) && !check(found)) return field
  }
  return undefined
}

export type Read<T> = { readonly value: T } | { readonly problem: string }

/** An entry's text, checked field by field. */
export function readDoubtful(body: string): Read<Entry> {
  const parsed = parse(body)
  if (!isRecord(parsed)) return { problem: 'the text is not the JSON object that an entry is' }
  if (parsed.v !== ENTRY_FORMAT)
    return { problem: `the entry has format ${say(parsed.v)}, not ${ENTRY_FORMAT}` }
  const { kind } = parsed
  const fields = ENTRY.get(kind as EntryKind)
  if (fields === undefined) return { problem: `the entry is of no known kind: ${say(kind)}` }
  const field = wrong(parsed, fields) ?? (kind === 'change' ? wrongDetail(parsed) : undefined)
  if (field !== undefined)
    return {
      problem:
        parsed[field] === undefined
          ? `the entry has no ${field}`
          : `its ${field} cannot be right: ${say(parsed[field])}`,
    }
  return { value: parsed as unknown as Entry }
}

function wrongDetail(change: Record<string, unknown>): string | undefined {
  const fields = DETAILS.get(change.what as string)
  return fields !== undefined && wrong(change.detail as Record<string, unknown>, fields) !== undefined
    ? 'detail'
    : undefined
}

/** The private part's text, checked the same way. */
export function readDoubtfulPrivate(part: string): Read<PrivatePart> {
  const parsed = parse(part)
  if (!isRecord(parsed) || wrong(parsed, PRIVATE) !== undefined)
    return { problem: 'the private part cannot be read' }
  return { value: parsed as unknown as PrivatePart }
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}

function say(value: unknown): string {
  const told = JSON.stringify(value) ?? 'nothing'
  return told.length > 60 ? `${told.slice(0, 57)}…` : told
}
