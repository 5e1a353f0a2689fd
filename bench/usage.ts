/** A question about usage on PostgreSQL: one contestant, which has its database filled before. */
import { type Conditions, contest, marks, type Outcome } from './contest.ts'
import { median } from './figures.ts'

/** Uses in the journal, against the accounts of the large file: ten million where it has a million. */
const USES_PER_ACCOUNT = 10

export async function usage(conditions: Conditions): Promise<Outcome> {
  const uses = conditions.manyAccounts * USES_PER_ACCOUNT
  const { asked } = await contest(conditions, async (stage) => ({
    asked: await stage.enter('usage', { url: await stage.database(), uses }),
  }))
  const shown = (name: string): string =>
    median(marks(asked, name)).toLocaleString('en-US', { maximumFractionDigits: 0 })
  return {
    figures: { pg_usage_query_ms: median(marks(asked, 'medianMs')) },
    ratios: {},
    notes: [
      `usage: ${shown('rows')} rows out of ${uses.toLocaleString('en-US')} uses, written in ${shown('fillSeconds')} s, one account's tenth folded in ${shown('foldSeconds')} s`,
    ],
  }
}
