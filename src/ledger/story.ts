/** The story of one request in plain sentences, for whoever has to explain it: support, the customer, an auditor. */
import { formatMicros, type Micros, type Millis } from '../units.ts'
import type { LedgerAccount } from './books.ts'
import type {
  BalanceEntry,
  ChangeEntry,
  ChargeEntry,
  DecisionEntry,
  Entry,
  LimitLine,
  PrivatePart,
  Split,
  UsageEntry,
} from './entries.ts'
import type { Quantities } from './price.ts'

export interface StoryLine {
  readonly entry: Entry
  /** Null where there is none or it was erased. */
  readonly person: PrivatePart | null
}

/**
 * Tells entries of one request in the order given, a line or more for each: what was asked and decided with every limit
 * before and after, what was used, what it cost and who paid, every transfer, every correction, and the end. Lines that
 * belong to the one before them are indented. Amounts are in CU, instants ISO 8601 in UTC.
 */
export function tellStory(entries: readonly StoryLine[]): string[] {
  return entries.flatMap((line) => tell(line))
}

function tell({ entry, person }: StoryLine): string[] {
  switch (entry.kind) {
    case 'decision':
      return tellDecision(entry, person)
    case 'usage':
      return [tellUsage(entry, person)]
    case 'charge':
      return tellCharge(entry)
    case 'balance':
      return [`  ${tellTransfer(entry)}`]
    case 'change':
      return [tellChange(entry)]
  }
}

const cu = (micros: Micros): string => `${formatMicros(micros)} CU`
/** Milliseconds have three digits or are not there: `.29Z` would be read as 29 of them. */
const iso = (at: Millis): string =>
  Temporal.Instant.fromEpochMilliseconds(at).toString({
    fractionalSecondDigits: at % 1_000 === 0 ? 0 : 3,
  })
const listed = (words: readonly string[]): string =>
  words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`
const named = (record: Readonly<Record<string, string>>): string =>
  Object.entries(record)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ')
const measured = (quantities: Quantities): string =>
  listed(Object.entries(quantities).map(([name, amount]) => `${formatMicros(amount)} ${name}`))

/** A source as a sentence names it: `the allowance included`, `grant welcome`, `overage`. */
function sourceText(source: string): string {
  if (source.startsWith('allowance:')) return `the allowance ${source.slice('allowance:'.length)}`
  if (source.startsWith('grant:')) return `grant ${source.slice('grant:'.length)}`
  return source
}
const splitText = (split: Split): string =>
  listed(
    split.map(([source, amount]) => {
      if (source === 'debt') return `${cu(amount)} owed as debt`
      return source === 'absorbed'
        ? `${cu(amount)} absorbed by the house`
        : `${cu(amount)} from ${sourceText(source)}`
    }),
  )

/** Who acted, for what, and with what: what an erased entry no longer tells is said to be erased. */
function who(person: PrivatePart | null, erased: boolean): string {
  if (person === null) return erased ? ', for someone who has been erased' : ''
  const subject = Object.keys(person.subject).length === 0 ? '' : ` for ${named(person.subject)}`
  const { attributes = {} } = person
  return Object.keys(attributes).length === 0 ? subject : `${subject} (${named(attributes)})`
}

/** When it happened and, where that was later, when it was written. */
function when({ at, recorded_at }: Entry): string {
  return recorded_at === undefined || recorded_at === at
    ? iso(at)
    : `${iso(at)} (written ${iso(recorded_at)})`
}

// --- decisions

function tellDecision(entry: DecisionEntry, person: PrivatePart | null): string[] {
  const { op, feature, plan, policy, actor, step } = entry
  const asks =
    op === 'reserve'
      ? `${actor} asked to use ${feature}${who(person, entry.private !== undefined)}`
      : `${actor} extended it, step ${step ?? '?'}`
  const estimate = entry.estimate === undefined ? '' : `: ${measured(entry.estimate)}`
  const total = op === 'reserve' ? `estimated at ${cu(entry.cost)}` : `to ${cu(entry.cost)} in all`
  return [
    `${when(entry)}: ${asks}, ${total}${estimate}. ${verdict(entry)}`,
    `  Decided under plan ${plan}, policy version ${policy}; reason: ${entry.reason}.`,
    ...limitLines(entry).map((line) => `  ${line}`),
  ]
}

/** Every limit of a reserve; of an extend those that it asked for more. */
function limitLines({ op, limits }: DecisionEntry): string[] {
  const told = op === 'reserve' ? limits : limits.filter((line) => line[9] !== 0)
  return told.length === 0 ? ['It asked no limit for more.'] : told.map(limitText)
}

function verdict({ op, outcome, cost, granted, granted_estimate, from, expires_at }: DecisionEntry): string {
  const part = granted_estimate === undefined ? '' : `: ${measured(granted_estimate)}`
  const allowed =
    outcome === 'partial' ? `Granted in part, ${cu(granted)} of ${cu(cost)}${part}.` : 'Allowed.'
  const holds =
    granted === 0 ? 'Nothing is held for it' : `${op === 'reserve' ? 'Held' : 'Held now'}: ${splitText(from)}`
  const until = expires_at === null ? '' : `, until ${iso(expires_at)}`
  return `${allowed} ${holds}${until}.`
}

const LIMITS: Readonly<Record<LimitLine[0], string>> = {
  rate: 'Rate',
  concurrency: 'Concurrency',
  budget: 'Budget',
  allowance: 'Allowance',
  credits: 'Credits',
  overage: 'Overage',
}

/** One limit before and after the decision. */
function limitText([kind, name, by, unit, limit, used, held, remaining, resetsAt, took]: LimitLine): string {
  const count = (amount: number): string =>
    unit === 'requests' || unit === 'holds' ? String(amount) : formatMicros(amount)
  const units = unit === 'cu' ? 'CU' : unit
  const title = kind === 'overage' ? LIMITS.overage : `${LIMITS[kind]} ${name.replaceAll('+', ', ')}`
  if (kind === 'credits') {
    const before = remaining + took
    return `${title}: ${count(before)} CU available, ${count(took)} taken, ${count(remaining)} left.`
  }
  const after = used + held
  const change =
    took === 0 ? `${count(after)}, as before` : `${count(after - took)} before, ${count(after)} after`
  const parts = unit === 'cu' ? ` (${count(used)} used, ${count(held)} held)` : ''
  const whose = by === null ? '' : ` by ${by}`
  const again = kind === 'rate' ? 'free again' : 'resets'
  const resets = resetsAt === null ? '' : `, ${again} ${iso(resetsAt)}`
  return `${title}${whose}: ${change}${parts}, of ${count(limit)} ${units}; ${count(remaining)} left${resets}.`
}

// --- use and charge

function tellUsage(entry: UsageEntry, person: PrivatePart | null): string {
  const { op, feature, quantities, endpoint, started_at, duration_ms, estimated, actor } = entry
  const what = Object.keys(quantities).length === 0 ? 'a stated cost' : measured(quantities)
  const details = [
    ...(endpoint === undefined ? [] : [`at ${endpoint}`]),
    ...(started_at === undefined ? [] : [`begun ${iso(started_at)}`]),
    ...(duration_ms === undefined ? [] : [`over ${formatMicros(duration_ms * 1_000)} s`]),
    ...(estimated === undefined ? [] : ['estimated']),
  ]
  const more = details.length === 0 ? '' : `, ${details.join(', ')}`
  const told = {
    settle: `${actor} settled it with what was used`,
    record: `${actor} recorded what had been used`,
    // Whoever came first after its end closed it: that names nobody.
    expiry: 'Its hold came to its end without being settled; what was last told counts as used',
  }
  return `${when(entry)}: ${told[op]} of ${feature}${who(person, entry.private !== undefined)}: ${what}${more}.`
}

function tellCharge(entry: ChargeEntry): string[] {
  const lines = [entry.refund === undefined ? chargeText(entry) : refundText(entry)]
  if (entry.returned !== undefined) lines.push(`  ${cu(entry.returned)} of what was held went back.`)
  if (entry.unpriced !== undefined) lines.push(`  Without a price, and so free: ${listed(entry.unpriced)}.`)
  for (const [key, by, startAt, amount] of entry.windows) {
    const whose = by === null ? '' : ` by ${by}`
    const instance = startAt === 0 ? 'which had ended' : `begun ${iso(startAt)}`
    lines.push(`  Window ${key}${whose}, ${instance}: ${amount < 0 ? '' : '+'}${cu(amount)} used.`)
  }
  return lines
}

function chargeText(entry: ChargeEntry): string {
  const { cost, cover, policy, line, stated, corrects, total } = entry
  const price =
    stated === true
      ? 'as stated by the caller'
      : line === undefined
        ? `no line of policy version ${policy} prices it`
        : `by line ${line + 1} of the rate card in policy version ${policy}`
  if (corrects !== undefined) {
    const whole = `It costs ${cu(total ?? 0)} in all, ${price}`
    if (cost === 0) return `${when(entry)}: ${whole}; nothing more is charged.`
    const way =
      cost < 0
        ? `${cu(-cost)} go back: ${backText(cover)}`
        : `${cu(cost)} more are charged: ${splitText(cover)}`
    return `${when(entry)}: ${whole}; ${way}.`
  }
  if (cost === 0) return `${when(entry)}: It cost nothing, ${price}.`
  return `${when(entry)}: It cost ${cu(cost)}, ${price}: ${splitText(cover)}.`
}

function refundText(entry: ChargeEntry): string {
  const { cost, cover, total, refund, reason, actor } = entry
  const why = reason === undefined || reason === '' ? '' : ` (${reason})`
  const back = cost === 0 ? 'nothing' : `${cu(-cost)}: ${backText(cover)}`
  return `${when(entry)}: ${actor} refunded ${back}, under ${refund}${why}. ${cu(total ?? 0)} stand charged.`
}

const backText = (cover: Split): string =>
  listed(
    cover.map(([source, amount]) =>
      source === 'debt'
        ? `${cu(-amount)} that were owed`
        : source === 'absorbed'
          ? `${cu(-amount)} that the house had absorbed`
          : `${cu(-amount)} to ${sourceText(source)}`,
    ),
  )

// --- transfers and closings

const ACCOUNTS: Readonly<Record<Exclude<LedgerAccount, `grant:${string}`>, string>> = {
  issued: 'credits issued',
  charged: 'charged',
  expired: 'expired',
  revoked: 'revoked',
  overage: 'overage',
  absorbed: 'absorbed by the house',
  debt: 'debt',
}
const accountText = (account: LedgerAccount): string =>
  account.startsWith('grant:') ? sourceText(account) : `“${ACCOUNTS[account as keyof typeof ACCOUNTS]}”`

function tellTransfer({ from, to, amount, reason, seq }: BalanceEntry): string {
  const why: Readonly<Record<BalanceEntry['reason'], string>> = {
    issued: 'issued',
    charge: 'for the charge',
    refund: 'given back',
    expired: 'it had expired meanwhile',
    revoked: 'it had been revoked meanwhile',
    rollover: 'rolled over',
    repaid: 'repays debt',
    summary: 'summed up',
  }
  return `Transfer ${seq}: ${cu(amount)} from ${accountText(from)} to ${accountText(to)}, ${why[reason]}.`
}

function tellChange(entry: ChangeEntry): string {
  const { what, detail, actor } = entry
  if (what !== 'hold_closed') return `${when(entry)}: ${actor} changed ${what.replaceAll('_', ' ')}.`
  const returned = typeof detail.returned === 'number' ? detail.returned : 0
  const why = typeof detail.reason === 'string' && detail.reason !== '' ? ` (${detail.reason})` : ''
  const back =
    returned === 0 ? 'Nothing was held for it' : `${cu(returned)} went back to where they were held from`
  if (detail.cause === 'expired')
    return `${when(entry)}: Its hold came to its end without being settled. ${back}; nothing was charged.`
  return `${when(entry)}: ${actor} released it${why}. ${back}; nothing was charged.`
}
