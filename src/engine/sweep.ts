/** Holds are closed within a second of their end; accounts that nobody uses are caught up by a quiet pass within a day. */
import { sweepAccount } from '../kernel/account.ts'
import { type AccountCell, type Key, type SubjectCell, SYSTEM, subjectKey } from '../kernel/cells.ts'
import { dropIdleSubjects } from '../kernel/forget.ts'
import { hasGrantsToBegin } from '../kernel/grants.ts'
import type { Millis } from '../units.ts'
import type { EngineMetrics } from './contract.ts'
import { type Core, contextOf, SYSTEM_CALLER } from './core.ts'
import type { Folder } from './usage/fold.ts'

const SWEEP_EVERY_MS = 250
const SWEEP_BATCH = 1_000
const QUIET_EVERY_MS = 6 * 3_600_000
const QUIET_PAGE = 200
const QUIET_PAUSE_MS = 20

export interface Sweeper {
  sweep(): Promise<number>
  tidyUp(): Promise<void>
  close(): Promise<void>
}

export function createSweeper(
  core: Core,
  metrics: EngineMetrics,
  horizonMs: Millis,
  automatic: boolean,
  folder: Folder,
): Sweeper {
  const { store } = core
  let closed = false
  let busy: Promise<unknown> = Promise.resolve()
  let sweepTimer: NodeJS.Timeout | undefined
  let quietTimer: NodeJS.Timeout | undefined

  async function sweep(): Promise<number> {
    let total = 0
    while (!closed) {
      const due = await store.due(SWEEP_BATCH)
      const oldest = due[0]
      metrics.sweepLagMs = oldest === undefined ? 0 : Math.max(0, (await store.now()) - oldest.dueAt)
      const closings = await Promise.all(due.map(({ account }) => sweepOne(account)))
      for (const one of closings) total += one ?? 0
      // Accounts that could not be swept now, because their clock or the store is away, are tried again next time.
      if (due.length < SWEEP_BATCH || closings.every((one) => one === undefined)) break
    }
    return total
  }

  function sweepOne(account: string): Promise<number | undefined> {
    const context = contextOf(SYSTEM_CALLER)
    return core
      .run(account, ['account'], (cells, env) => sweepAccount(cells, env, context, account))
      .then(
        ({ closed: count }) => count,
        () => undefined,
      )
  }

  const policyInForce = () =>
    core.run(SYSTEM, [], (_, env) => ({ result: { ok: env.policy.active }, writes: [], entries: [] }))

  async function tidyUp(): Promise<void> {
    const { plans } = await policyInForce()
    let after: string | undefined
    for (;;) {
      const page = await store.accounts(
        after === undefined ? { limit: QUIET_PAGE } : { after, limit: QUIET_PAGE },
      )
      const now = await store.now()
      for (const account of page) {
        if (closed) return
        const plan = plans.get(account.plan)
        if (creditsDue(account, now) || (plan !== undefined && hasGrantsToBegin(account, plan)))
          await sweepOne(account.id)
        if (Object.keys(account.subjectCounts).length > 0) await dropIdle(account.id)
        await folder.tidy(account)
      }
      const last = page.at(-1)
      if (last === undefined || page.length < QUIET_PAGE) break
      after = last.id
      await new Promise((resolve) => setTimeout(resolve, QUIET_PAUSE_MS))
    }
    await store.dropRequestsBefore((await store.now()) - horizonMs)
  }

  async function dropIdle(account: string): Promise<void> {
    let after: string | undefined
    for (;;) {
      const page = await store.cells(
        account,
        'subject:',
        after === undefined ? { limit: QUIET_PAGE } : { after, limit: QUIET_PAGE },
      )
      const subjects = page
        .map(({ cell }) => cell as SubjectCell)
        .map(({ dimension, value }) => ({ dimension, value }))
      const keys: Key[] = ['account', ...subjects.map(({ dimension, value }) => subjectKey(dimension, value))]
      const context = contextOf(SYSTEM_CALLER)
      if (subjects.length > 0) {
        await core.run(account, keys, (cells, env) =>
          dropIdleSubjects(cells, env, context, account, subjects),
        )
      }
      const last = page.at(-1)
      if (last === undefined || page.length < QUIET_PAGE) return
      after = last.key
    }
  }

  function schedule(): void {
    if (closed || !automatic) return
    sweepTimer = setTimeout(() => {
      busy = sweep()
        .catch(() => 0)
        .finally(schedule)
    }, SWEEP_EVERY_MS).unref()
  }
  schedule()
  if (automatic) quietTimer = setInterval(() => void tidyUp().catch(() => {}), QUIET_EVERY_MS).unref()

  return {
    sweep,
    tidyUp,
    async close() {
      closed = true
      clearTimeout(sweepTimer)
      clearInterval(quietTimer)
      await busy
    },
  }
}

function creditsDue(account: AccountCell, now: Millis): boolean {
  if (account.dueAt !== null && account.dueAt <= now) return true
  if (
    account.grants.some(
      (grant) => grant.ended === undefined && grant.expiresAt !== null && grant.expiresAt <= now,
    )
  )
    return true
  return Object.values(account.recurrences).some(({ nextAt }) => nextAt !== null && nextAt <= now)
}
