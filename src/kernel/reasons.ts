/**
 * Every reason an answer can give, most fundamental first. Where several things block a request, the first of them in this
 * list names the refusal. The reference page keeps this order, held to it by a test.
 */
export const REASONS = [
  'released',
  'hold_closed',
  'account_suspended',
  'account_closed',
  'feature_not_allowed',
  'subject_limit',
  'too_large',
  'rate_full',
  'concurrency_full',
  'budget_spent',
  'in_debt',
  'allowance_spent',
  'credits_short',
  'overage_spent',
  'granted_in_part',
  'granted',
] as const

export type Reason = (typeof REASONS)[number]

const RANK: Readonly<Record<Reason, number>> = Object.fromEntries(
  REASONS.map((reason, rank) => [reason, rank]),
) as Record<Reason, number>

/** The more fundamental of two reasons. */
export function firstReason(a: Reason | undefined, b: Reason): Reason {
  return a === undefined || RANK[b] < RANK[a] ? b : a
}
