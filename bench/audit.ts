/** How fast a PostgreSQL is audited: many small accounts, and a few long ones. */
import { type Conditions, contest, marks, type Outcome, perSecond, usual } from './contest.ts'
import { median } from './figures.ts'

/** With three entries a pair and three of its creation, 30 entries an account. */
const PAIRS_EACH = 9
/** A third of the pairs on accounts so few that each has to be read page by page. */
const LONG = 5
const PAIRS_OF_LONG = 3

export async function audits(conditions: Conditions): Promise<Outcome> {
  const accounts = usual(conditions)
  const { many, few } = await contest(conditions, async (stage) => ({
    many: await stage.enter('audit', {
      url: await stage.database(),
      accounts,
      pairs: accounts * PAIRS_EACH,
    }),
    few: await stage.enter('audit', {
      url: await stage.database(),
      accounts: LONG,
      pairs: accounts * PAIRS_OF_LONG,
    }),
  }))
  const shown = (value: number): string => Math.round(value).toLocaleString('en-US')
  const entries = (turns: typeof many): string => shown(median(marks(turns, 'entries')))
  return {
    figures: { pg_audit_entries_per_s: perSecond(many) },
    ratios: {},
    notes: [
      `audited: ${entries(many)} entries of ${shown(accounts)} accounts, ${median(marks(many, 'micros')).toFixed(1)} µs of CPU in Node for each, ${shown(Math.max(...marks(many, 'rssMb')))} MB`,
      `of ${LONG} accounts, ${entries(few)} entries: ${shown(perSecond(few))} entries a second`,
    ],
  }
}
