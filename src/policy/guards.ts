import type { Guard, Meter, RateGuard } from '../kernel/plan.ts'
import { MICROS_PER_UNIT, parseMicros } from '../units.ts'
import { type Complain, quote } from './complaints.ts'
import { boundedDuration } from './durations.ts'
import { claim, type PlanContext, readAmount, resolveFeatures, ruleOf } from './reading.ts'
import type { GuardDocument } from './schema.ts'

/** `names` gathers what is taken in this plan. */
export function compileGuard(
  guard: GuardDocument,
  path: string,
  names: Map<string, string>,
  context: PlanContext,
): Guard {
  const { complain } = context
  claim(guard.name, `${path}/name`, names, complain)
  const base = {
    name: guard.name,
    by: guard.by,
    features: resolveFeatures(guard.features, `${path}/features`, context),
  }
  if ('concurrency' in guard) return { kind: 'concurrency', ...base, limit: guard.concurrency }
  if ('budget' in guard) {
    const limit = readAmount(guard.budget, `${path}/budget`, complain)
    return { kind: 'budget', ...base, limit, rule: ruleOf(guard, 'account', path, context) }
  }
  return { kind: 'rate', ...base, ...compileRate(guard.rate, `${path}/rate`, complain) }
}

type RateDocument = Extract<GuardDocument, { readonly rate: unknown }>['rate']

function compileRate(
  rate: RateDocument,
  path: string,
  complain: Complain,
): Pick<RateGuard, 'meter' | 'limit' | 'perMs' | 'algorithm' | 'capacity'> {
  const meter: Meter =
    rate.meter === 'requests' || rate.meter === 'cost'
      ? { kind: rate.meter }
      : { kind: 'quantity', quantity: rate.meter }
  const algorithm = rate.algorithm ?? 'gcra'
  const limit = readUnits(rate.limit, meter, `${path}/limit`, complain)
  if (rate.burst !== undefined && algorithm !== 'gcra') {
    complain(
      `${path}/burst`,
      `must be left out: only \`gcra\` has a burst, \`${algorithm}\` admits up to its limit at once`,
    )
  }
  const capacity = rate.burst === undefined ? limit : readUnits(rate.burst, meter, `${path}/burst`, complain)
  return { meter, limit, perMs: boundedDuration(rate.per, `${path}/per`, complain), algorithm, capacity }
}

/** Whole requests, µCU, or micro-units of a quantity; never zero, because a rate of nothing never admits and never refills. */
function readUnits(value: string | number, meter: Meter, path: string, complain: Complain): number {
  const micros = readAmount(value, path, complain)
  if (micros === 0 && parseMicros(value) === 0)
    complain(path, 'must be more than zero; to forbid a feature leave it out of `features`')
  if (meter.kind !== 'requests') return micros
  if (micros % MICROS_PER_UNIT !== 0)
    complain(path, `must be a whole number of requests, not ${quote(value)}`)
  return Math.floor(micros / MICROS_PER_UNIT)
}
