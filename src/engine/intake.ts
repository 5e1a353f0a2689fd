/**
 * The engine's door: what callers send becomes frozen kernel operations, or an error with the path and what to do. Checked
 * once, here; nothing further in checks input again.
 */
import { SluiceError } from '../errors.ts'
import type { AccountChange, GrantOp, NewAccount, OverrideOp } from '../kernel/account.ts'
import { SYSTEM } from '../kernel/cells.ts'
import type { RefundOp, ReleaseOp, UseOp } from '../kernel/exit.ts'
import type { ExtendOp } from '../kernel/extend.ts'
import { OWN_GRANT_PREFIX } from '../kernel/grants.ts'
import type { Ask } from '../kernel/pricing.ts'
import type { ReserveOp } from '../kernel/reserve.ts'
import { isTimeZone } from '../kernel/windows.ts'
import { GRANT_KINDS, type GrantKind } from '../ledger/grants.ts'
import { wholeText } from '../texts.ts'
import { type Micros, type Millis, parseMicros } from '../units.ts'
import type * as wire from '../wire.ts'

export const MAX_DIMENSIONS = 8
export const MAX_ATTRIBUTES = 16
export const MAX_QUANTITIES = 32
export const MAX_TEXT = 256
/** The latest instant that is taken: the year 9999. */
const MAX_INSTANT: Millis = 253_402_300_799_999
const MAX_DURATION: Millis = 400 * 86_400_000

function invalid(path: string, message: string, remedy: string): never {
  throw new SluiceError('invalid', `${path === '' ? 'the body' : path}: ${message}`, { path, remedy })
}

// --- the alphabet of input

const MAX_ID = 128
export function id(value: unknown, path: string): string {
  if (typeof value === 'string' && isId(value) && value !== '__proto__') return value
  return invalid(path, 'not an id', `send 1 to ${MAX_ID} printable ASCII characters without space`)
}
/** A loop, since an operation has ten ids, and a regular expression takes five times as long for each. */
function isId(text: string): boolean {
  if (text.length === 0 || text.length > MAX_ID) return false
  for (let place = 0; place < text.length; place++) {
    const code = text.charCodeAt(place)
    if (code <= 0x20 || code >= 0x7f) return false
  }
  return true
}

export function text(value: unknown, path: string, max = MAX_TEXT): string {
  if (typeof value === 'string' && value.length <= max && value.isWellFormed() && !value.includes('\0'))
    return value
  return invalid(path, 'not a text', `send at most ${max} characters of valid Unicode without NUL`)
}

function optionalText(value: unknown, path: string): string | undefined {
  return value === undefined ? undefined : text(value, path)
}

export function amount(value: unknown, path: string): Micros {
  const micros = parseMicros(value)
  if (micros !== undefined) return micros
  return invalid(
    path,
    'not an amount',
    'send a decimal string such as "12.5": not negative, at most six decimals, at most 9007199254.740991',
  )
}

export function instant(value: unknown, path: string): Millis {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= MAX_INSTANT)
    return value
  return invalid(path, 'not an instant', 'send integer milliseconds since 1970-01-01T00:00:00Z')
}
const optionalInstant = (value: unknown, path: string): Millis | undefined =>
  value === undefined ? undefined : instant(value, path)

function duration(value: unknown, path: string, least: Millis): Millis | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= MAX_DURATION)
    return value
  return invalid(path, 'not a duration', `send integer milliseconds from ${least} to ${MAX_DURATION}`)
}

function record(value: unknown, path: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>
  return invalid(path, 'not an object', 'send a JSON object')
}

/** Refuses fields that mean nothing here: most are misspelt. */
export function onlyFields(value: unknown, known: readonly string[], path = ''): void {
  for (const field of Object.keys(record(value, path))) {
    if (!known.includes(field))
      invalid(`${path}/${field}`, 'no such field', `known fields: ${known.join(', ')}`)
  }
}

export function subject(value: unknown, path = '/subject'): Readonly<Record<string, string>> {
  if (value === undefined) return {}
  const given = record(value, path)
  const dimensions = Object.keys(given)
  if (dimensions.length > MAX_DIMENSIONS)
    invalid(path, 'too many dimensions', `send at most ${MAX_DIMENSIONS}`)
  const result: Record<string, string> = {}
  for (const dimension of dimensions) {
    const at = `${path}/${dimension}`
    result[id(dimension, at)] = id(given[dimension], at)
  }
  return result
}

function attributes(value: unknown): Readonly<Record<string, string>> | undefined {
  if (value === undefined) return undefined
  const all = record(value, '/attributes')
  const names = Object.keys(all)
  if (names.length > MAX_ATTRIBUTES)
    invalid('/attributes', 'too many attributes', `send at most ${MAX_ATTRIBUTES}`)
  const result: Record<string, string> = {}
  for (const name of names) {
    const given = all[name]
    const path = `/attributes/${name}`
    const plain = typeof given === 'boolean' || (typeof given === 'number' && Number.isFinite(given))
    result[id(name, path)] = text(plain ? String(given) : given, path)
  }
  return result
}

export function quantities(value: unknown, path: string): Readonly<Record<string, number>> {
  const given = record(value, path)
  const names = Object.keys(given)
  if (names.length > MAX_QUANTITIES) invalid(path, 'too many quantities', `send at most ${MAX_QUANTITIES}`)
  const result: Record<string, number> = {}
  for (const name of names) {
    const micros = parseMicros(given[name])
    if (micros === undefined)
      invalid(
        `${path}/${name}`,
        'not a quantity',
        'send a number or decimal string: not negative, at most six decimals',
      )
    result[id(name, `${path}/${name}`)] = micros
  }
  return result
}

/** What is asked, as a canonical text: fields that say when or how long are not part of it. */
function meaning(...parts: readonly unknown[]): string {
  return JSON.stringify(parts.map(ordered))
}
/** A record whose fields stand in one order, whatever order they came in. */
function ordered(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value ?? null
  const names = Object.keys(value)
  for (let place = 1; place < names.length; place++)
    if ((names[place - 1] as string) > (names[place] as string)) return inOrder(value, names)
  return value
}
/** Each name is put in its place by hand: the platform's sort takes a kilobyte for three names. */
function inOrder(value: object, names: string[]): object {
  for (let next = 1; next < names.length; next++) {
    const name = names[next] as string
    let place = next
    for (; place > 0 && (names[place - 1] as string) > name; place--)
      names[place] = names[place - 1] as string
    names[place] = name
  }
  const record: Record<string, unknown> = {}
  for (const name of names) record[name] = (value as Record<string, unknown>)[name]
  return record
}

// --- operations

const RESERVE_FIELDS = [
  'request_id',
  'account',
  'subject',
  'feature',
  'attributes',
  'estimate',
  'cost',
  'min_cost',
  'min',
  'ttl_ms',
  'dry_run',
]
export function reserveOp(given: wire.ReserveRequest): ReserveOp {
  onlyFields(given, RESERVE_FIELDS)
  const op = {
    account: accountId(given.account, '/account'),
    requestId: wholeText(id(given.request_id, '/request_id')),
    subject: subject(given.subject),
    feature: id(given.feature, '/feature'),
    attributes: attributes(given.attributes) ?? {},
    ask: askOf(given) ?? ({ kind: 'default' } as const),
    leastCost: given.min_cost === undefined ? undefined : amount(given.min_cost, '/min_cost'),
    leastQuantities: given.min === undefined ? undefined : quantities(given.min, '/min'),
    ttlMs: duration(given.ttl_ms, '/ttl_ms', 1),
    dryRun: flag(given.dry_run, '/dry_run'),
  }
  if (op.leastCost !== undefined && op.leastQuantities !== undefined) {
    invalid('/min', 'given beside min_cost', 'send one of min and min_cost')
  }
  const asked = meaning(
    'reserve',
    op.subject,
    op.feature,
    op.attributes,
    askedFor(op.ask),
    op.leastCost,
    op.leastQuantities,
  )
  return { ...op, meaning: asked }
}

function flag(value: unknown, path: string): boolean {
  if (value === undefined || typeof value === 'boolean') return value ?? false
  return invalid(path, 'not true or false', 'send true or false')
}

function askOf(given: {
  readonly estimate?: unknown
  readonly cost?: unknown
}): Exclude<Ask, { kind: 'default' }> | undefined {
  if (given.estimate !== undefined && given.cost !== undefined)
    invalid('/cost', 'given beside estimate', 'send one of estimate and cost')
  if (given.cost !== undefined) return { kind: 'cost', costMicros: amount(given.cost, '/cost') }
  return given.estimate === undefined
    ? undefined
    : { kind: 'estimate', quantities: quantities(given.estimate, '/estimate') }
}

function askedFor(ask: Ask): unknown {
  if (ask.kind === 'default') return 'default'
  return ask.kind === 'cost' ? ask.costMicros : ask.quantities
}

const EXTEND_FIELDS = ['request_id', 'account', 'step', 'estimate', 'cost', 'ttl_ms', 'used', 'min_cost']
export function extendOp(given: wire.ExtendRequest): ExtendOp {
  onlyFields(given, EXTEND_FIELDS)
  if (!Number.isSafeInteger(given.step) || given.step < 1) invalid('/step', 'not a step', 'count 1, 2, 3…')
  const op = {
    account: accountId(given.account, '/account'),
    requestId: id(given.request_id, '/request_id'),
    step: given.step,
    ask: askOf(given),
    leastCost: given.min_cost === undefined ? undefined : amount(given.min_cost, '/min_cost'),
    ttlMs: duration(given.ttl_ms, '/ttl_ms', 1),
    used: given.used === undefined ? undefined : quantities(given.used, '/used'),
  }
  const ask = op.ask === undefined ? null : askedFor(op.ask)
  return { ...op, meaning: meaning('extend', op.step, ask, op.leastCost, op.used) }
}

const SETTLE_FIELDS = [
  'request_id',
  'account',
  'subject',
  'feature',
  'attributes',
  'usage',
  'cost',
  'endpoint',
  'started_at',
  'duration_ms',
  'estimated',
]
const RECORD_FIELDS = [
  'request_id',
  'account',
  'subject',
  'feature',
  'attributes',
  'usage',
  'cost',
  'at',
  'endpoint',
  'duration_ms',
  'estimated',
]

export function settleOp(given: wire.SettleRequest, horizonMs: Millis): UseOp {
  onlyFields(given, SETTLE_FIELDS)
  return useOp(
    'settle',
    given,
    {
      feature: given.feature === undefined ? undefined : id(given.feature, '/feature'),
      at: undefined,
      startedAt: optionalInstant(given.started_at, '/started_at'),
    },
    horizonMs,
  )
}

export function recordOp(given: wire.RecordRequest, horizonMs: Millis): UseOp {
  onlyFields(given, RECORD_FIELDS)
  return useOp(
    'record',
    given,
    { feature: id(given.feature, '/feature'), at: optionalInstant(given.at, '/at'), startedAt: undefined },
    horizonMs,
  )
}

function useOp(
  by: UseOp['by'],
  given: wire.SettleRequest | wire.RecordRequest,
  own: Pick<UseOp, 'feature' | 'at' | 'startedAt'>,
  horizonMs: Millis,
): UseOp {
  if (given.usage !== undefined && given.cost !== undefined)
    invalid('/cost', 'given beside usage', 'send one of usage and cost')
  if (given.usage === undefined && given.cost === undefined)
    invalid('/usage', 'missing', 'send what was used as usage, or its cost')
  const used =
    given.usage === undefined
      ? { costMicros: amount(given.cost, '/cost') }
      : { quantities: quantities(given.usage, '/usage') }
  const op = {
    by,
    account: accountId(given.account, '/account'),
    requestId: wholeText(id(given.request_id, '/request_id')),
    subject: given.subject === undefined ? undefined : subject(given.subject),
    attributes: attributes(given.attributes),
    used,
    endpoint: optionalText(given.endpoint, '/endpoint'),
    durationMs: duration(given.duration_ms, '/duration_ms', 0),
    estimated: flag(given.estimated, '/estimated'),
    horizonMs,
    ...own,
  }
  const what = 'costMicros' in used ? used.costMicros : used.quantities
  // Subject and feature are compared by what they come to: the request knows them where the call leaves them out.
  return { ...op, meaning: meaning(by, op.attributes, what) }
}

export function releaseOp(given: wire.ReleaseRequest): ReleaseOp {
  onlyFields(given, ['request_id', 'account', 'reason'])
  return {
    account: accountId(given.account, '/account'),
    requestId: id(given.request_id, '/request_id'),
    reason: optionalText(given.reason, '/reason'),
  }
}

export function refundOp(account: string, requestId: string, given: wire.RefundRequest): RefundOp {
  onlyFields(given, ['refund_id', 'amount', 'usage', 'reason'])
  if (given.amount !== undefined && given.usage !== undefined)
    invalid('/usage', 'given beside amount', 'send one of amount and usage')
  const back =
    given.amount !== undefined
      ? { amountMicros: amount(given.amount, '/amount') }
      : given.usage !== undefined
        ? { quantities: quantities(given.usage, '/usage') }
        : ('all' as const)
  const op = {
    account: accountId(account, '/account'),
    requestId: id(requestId, '/request_id'),
    refundId: id(given.refund_id, '/refund_id'),
    back,
    reason: text(given.reason, '/reason'),
  }
  const what = back === 'all' ? 'all' : 'amountMicros' in back ? back.amountMicros : back.quantities
  return { ...op, meaning: meaning('refund', op.refundId, what) }
}

// --- accounts, grants

export function accountId(value: unknown, path: string): string {
  const name = id(value, path)
  if (name.startsWith('@')) invalid(path, 'ids that begin with @ are Sluice’s own', 'choose another id')
  return name
}

/** Entries of `@system` may be read like an account's. */
export const accountOrSystem = (value: unknown): string =>
  value === SYSTEM ? SYSTEM : accountId(value, '/account')

export function newAccount(given: wire.AccountRequest): NewAccount {
  onlyFields(given, ['id', 'plan', 'time_zone', 'anchor_at', 'metadata'])
  const made = {
    id: wholeText(accountId(given.id, '/id')),
    plan: id(given.plan, '/plan'),
    zone: given.time_zone === undefined ? 'UTC' : zone(given.time_zone),
    anchorAt: optionalInstant(given.anchor_at, '/anchor_at'),
    metadata: given.metadata === undefined ? {} : metadata(given.metadata),
  }
  return { ...made, meaning: meaning('account', made.plan, made.zone, made.anchorAt, made.metadata) }
}

function zone(value: unknown): string {
  const known = typeof value === 'string' ? isTimeZone(value) : undefined
  return known ?? invalid('/time_zone', 'not a time zone', 'send an IANA name such as Europe/Berlin or UTC')
}

/** The most keys of metadata an account keeps. */
const MAX_METADATA = 32
function metadata(value: unknown): Readonly<Record<string, string>> {
  const entries = Object.entries(record(value, '/metadata'))
  if (entries.length > MAX_METADATA) invalid('/metadata', 'too many keys', `send at most ${MAX_METADATA}`)
  return Object.fromEntries(
    entries.map(([key, given]) => [id(key, `/metadata/${key}`), text(given, `/metadata/${key}`)]),
  )
}

export function accountChange(given: wire.AccountPatch): AccountChange {
  onlyFields(given, ['plan', 'status', 'time_zone', 'metadata'])
  const { status } = given
  if (status !== undefined && !['active', 'suspended', 'closed'].includes(status)) {
    invalid('/status', 'not a status', 'send active, suspended or closed')
  }
  const patch = given.metadata
  if (patch !== undefined && patch !== null) record(patch, '/metadata')
  return {
    ...(given.plan === undefined ? {} : { plan: id(given.plan, '/plan') }),
    ...(status === undefined ? {} : { status }),
    ...(given.time_zone === undefined ? {} : { zone: zone(given.time_zone) }),
    ...(patch === undefined
      ? {}
      : { metadata: (before: Readonly<Record<string, string>>) => mergePatch(before, patch) }),
  }
}

/** JSON merge patch, RFC 7396: null removes. */
function mergePatch(
  before: Readonly<Record<string, string>>,
  patch: Readonly<Record<string, string | null>> | null,
): Readonly<Record<string, string>> {
  if (patch === null) return {}
  const merged: Record<string, string | null> = { ...before, ...patch }
  return metadata(Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null)))
}

export function overrideOp(given: wire.OverridesRequest): OverrideOp {
  onlyFields(given, ['subject', 'overrides', 'reason'])
  const named = Object.entries(subject(given.subject))
  if (given.subject !== undefined && named.length !== 1)
    invalid('/subject', 'not one dimension', 'name exactly one, or leave it out for the whole account')
  if (!Array.isArray(given.overrides) || given.overrides.length === 0 || given.overrides.length > 64) {
    invalid('/overrides', 'not a list of overrides', 'send 1 to 64 of { name, limit, until_at? }')
  }
  const overrides = given.overrides.map((one: wire.OverrideIn, place: number) => {
    const path = `/overrides/${place}`
    onlyFields(one, ['name', 'limit', 'until_at'], path)
    return {
      name: text(one.name, `${path}/name`),
      limitMicros: one.limit === null ? null : amount(one.limit, `${path}/limit`),
      untilAt: optionalInstant(one.until_at, `${path}/until_at`) ?? null,
    }
  })
  const [only] = named
  return {
    subject: only === undefined ? undefined : { dimension: only[0], value: only[1] },
    overrides,
    reason: text(given.reason, '/reason'),
  }
}

export function grantOp(account: string, given: wire.GrantRequest): GrantOp {
  onlyFields(given, [
    'id',
    'kind',
    'amount',
    'priority',
    'starts_at',
    'expires_at',
    'features',
    'subjects',
    'reason',
  ])
  const { kind } = given
  if (!GRANT_KINDS.includes(kind as GrantKind))
    invalid('/kind', 'not a kind', `send one of: ${GRANT_KINDS.join(', ')}`)
  const grantId = id(given.id, '/id')
  if (grantId.startsWith(OWN_GRANT_PREFIX) || grantId.startsWith('refund:')) {
    invalid('/id', 'ids that begin with plan: or refund: are Sluice’s own', 'choose another id')
  }
  const op = {
    account: accountId(account, '/account'),
    id: grantId,
    kind,
    amount: amount(given.amount, '/amount'),
    priority: priority(given.priority),
    startsAt: optionalInstant(given.starts_at, '/starts_at'),
    expiresAt: optionalInstant(given.expires_at, '/expires_at') ?? null,
    features: patterns(given.features),
    subjects: scope(given.subjects),
    reason: optionalText(given.reason, '/reason'),
  }
  if (op.amount === 0) invalid('/amount', 'nothing', 'send an amount above zero')
  return {
    ...op,
    meaning: meaning(
      'grant',
      op.kind,
      op.amount,
      op.priority,
      op.startsAt,
      op.expiresAt,
      op.features,
      op.subjects,
    ),
  }
}

function priority(value: unknown): number | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 1_000_000) return value
  return invalid(
    '/priority',
    'not a priority',
    'send an integer from 0 to 1000000: lower burns first, 100 is the default',
  )
}

function patterns(value: unknown): readonly string[] | undefined {
  if (value === undefined) return undefined
  if (!Array.isArray(value) || value.length === 0 || value.length > 32)
    invalid('/features', 'not a list of features', 'send 1 to 32 names or patterns such as codex.*')
  return value.map((one, place) => id(one, `/features/${place}`))
}

function scope(value: unknown): Readonly<Record<string, readonly string[]>> | undefined {
  if (value === undefined) return undefined
  const entries = Object.entries(record(value, '/subjects'))
  if (entries.length === 0 || entries.length > MAX_DIMENSIONS)
    invalid('/subjects', 'no dimensions, or too many', `name 1 to ${MAX_DIMENSIONS} dimensions`)
  return Object.fromEntries(
    entries.map(([dimension, given]) => {
      const path = `/subjects/${dimension}`
      const values = Array.isArray(given) ? given : [given]
      if (values.length === 0 || values.length > 32)
        invalid(path, 'no values, or too many', 'send 1 to 32 values')
      return [id(dimension, path), values.map((one) => id(one, path))]
    }),
  )
}
