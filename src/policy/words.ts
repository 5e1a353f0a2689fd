/** Compiled values as an owner reads them, for the differences between two policies. */
import type { Guard, Meter, RateGuard, RecurringGrant, Source, WindowRule } from '../kernel/plan.ts'
import type { RateLine } from '../ledger/price.ts'
import { formatMicros } from '../units.ts'
import { formatDuration } from './durations.ts'

const DAYS = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday']

/** `5h from first use`, `calendar week from monday`, `month from the account’s anchor`. */
export function ruleWords(rule: WindowRule | undefined): string {
  if (rule === undefined) return 'once'
  if (rule.anchor === 'first_use') return `${formatDuration(rule.lengthMs)} from first use`
  if (rule.anchor === 'account') {
    const length = 'unit' in rule.period ? rule.period.unit : formatDuration(rule.period.lengthMs)
    return `${length} from the account’s anchor`
  }
  const unit = rule.unit === 'week' ? `week from ${DAYS[rule.weekStart - 1]}` : rule.unit
  return rule.anchor === 'calendar' ? `calendar ${unit}` : `calendar ${unit}, or from the account’s anchor`
}

export const cuWords = (micros: number): string => `${formatMicros(micros)} CU`

/** An amount in the meter's unit: `60 requests`, `12.5 CU`, `400000 output_tokens`. */
export function meterWords(amount: number, meter: Meter): string {
  if (meter.kind === 'requests') return `${amount} requests`
  return meter.kind === 'cost' ? cuWords(amount) : `${formatMicros(amount)} ${meter.quantity}`
}

export const meterName = (meter: Meter): string => (meter.kind === 'quantity' ? meter.quantity : meter.kind)

export function guardWords(guard: Guard): string {
  const by = guard.by === undefined ? '' : ` by ${guard.by}`
  if (guard.kind === 'concurrency') return `at most ${guard.limit} at once${by}`
  if (guard.kind === 'budget') return `budget of ${cuWords(guard.limit)} per ${ruleWords(guard.rule)}${by}`
  return `${rateWords(guard)}${by}`
}

function rateWords({ limit, meter, perMs, algorithm }: RateGuard): string {
  return `${meterWords(limit, meter)} per ${formatDuration(perMs)}, ${algorithm}`
}

export function sourceWords(source: Source): string {
  if (source.kind === 'allowance') return `allowance ${source.name}`
  return source.kind === 'credits' ? `credits ${source.kinds.join(', ')}` : 'overage'
}

export function grantWords(grant: RecurringGrant): string {
  return `${cuWords(grant.amount)} of ${grant.kind}, ${grant.every === undefined ? '' : 'every '}${ruleWords(grant.every)}`
}

/** `all`, or names in their order. */
export function namesWords(names: Iterable<string> | undefined): string {
  return names === undefined ? 'all' : [...names].sort().join(', ')
}

/** What tells a line of a rate card from the others: its conditions, in an order of their own. */
export function conditionWords(line: RateLine): string {
  if (line.when.length === 0) return 'anything else'
  return line.when
    .map(([attribute, value]) => `${attribute} ${value}`)
    .sort()
    .join(', ')
}

/** A price in force, with `multiply` in it: `43.75 CU per million`, `2.5 CU per unit`, `0.5 CU per request`. */
export function priceWords(line: RateLine, quantity: string | undefined): string | undefined {
  if (quantity === undefined) {
    // The fixed part is in µCU for each request.
    return line.fixedNumerator === 0n
      ? undefined
      : `${decimal(line.fixedNumerator, line.denominator * 1_000_000n)} CU per request`
  }
  const numerator = line.terms.find((term) => term.quantity === quantity)?.numerator
  if (numerator === undefined) return undefined
  const small = numerator * 100n < line.denominator
  if (small) return `${decimal(numerator * 1_000_000n, line.denominator)} CU per million`
  return `${decimal(numerator, line.denominator)} CU per unit`
}

/** A fraction whose denominator divides a power of ten, as the exact decimal that it is. */
function decimal(numerator: bigint, denominator: bigint): string {
  const whole = numerator / denominator
  let rest = numerator % denominator
  let digits = ''
  while (rest !== 0n) {
    rest *= 10n
    digits += String(rest / denominator)
    rest %= denominator
  }
  return digits === '' ? String(whole) : `${whole}.${digits}`
}
