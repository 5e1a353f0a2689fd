/**
 * The engine: what Sluice does, over any store. It checks input once, names the cells each operation touches, hands the
 * kernel's step to the store, and turns what comes back into answers. It decides nothing itself.
 */

import { partAuditor } from './engine/audit/part.ts'
import { auditStore } from './engine/audit.ts'
import type { Caller, Engine, EngineMetrics } from './engine/contract.ts'
import { COMMIT_SIZE_BOUNDS } from './engine/contract.ts'
import { contextOf, createCore, SYSTEM_CALLER } from './engine/core.ts'
import { erase } from './engine/erase.ts'
import { accountUnknown, explain } from './engine/explain.ts'
import * as intake from './engine/intake.ts'
import { cursorOf, listOf, numberAfter, pageOf } from './engine/paging.ts'
import * as present from './engine/present.ts'
import { createRefusalLog } from './engine/refusals.ts'
import { retain } from './engine/retain.ts'
import * as standing from './engine/standing.ts'
import { createSweeper } from './engine/sweep.ts'
import * as system from './engine/system.ts'
import { createFolder, FOLD_FROM } from './engine/usage/fold.ts'
import { usageRows } from './engine/usage.ts'
import { createWatcher, type WatchBounds } from './engine/watch.ts'
import { SluiceError } from './errors.ts'
import * as accounts from './kernel/account.ts'
import {
  type AccountCell,
  type Cells,
  type GrantCell,
  grantKey,
  type Key,
  requestKey,
  type SubjectCell,
  subjectKey,
} from './kernel/cells.ts'
import { refund, release, use } from './kernel/exit.ts'
import { extend } from './kernel/extend.ts'
import type { PriorityClass } from './kernel/plan.ts'
import { reserve } from './kernel/reserve.ts'
import { compilePolicy } from './policy/compile.ts'
import type { PolicyDocument } from './policy/schema.ts'
import type { Env, Store } from './store.ts'
import type { Millis } from './units.ts'
import type * as wire from './wire.ts'

export type * from './engine/contract.ts'
export { COMMIT_SIZE_BOUNDS }

export const DEFAULT_HORIZON_MS: Millis = 35 * 86_400_000

export interface EngineOptions {
  readonly store: Store
  /** Published at start where it differs from what is in force: text, or a document of `definePolicy`. */
  readonly policy?: string | PolicyDocument
  /** How long ids are protected; never less than a hold's lifetime. Default 35 days. */
  readonly horizonMs?: Millis
  /** Whether holds are closed and idle accounts caught up by themselves. Default true. */
  readonly sweeps?: boolean
  /** Bounds of `watch`; the defaults suit a server, tests narrow them. */
  readonly watch?: WatchBounds
}

/** Accounts whose class is remembered for the queue; only those that are not `standard` take a place. */
const MAX_CLASSES = 100_000

/** Opens the store, publishes the policy where one is given, and starts the sweeps. */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  const { store } = options
  const horizonMs = options.horizonMs ?? DEFAULT_HORIZON_MS
  const metrics = newMetrics()
  try {
    await store.open({
      compilePolicy: (version, text) => compilePolicy(version, text),
      onCommit: (operations, entries, durationMs) => countCommit(metrics, operations, entries, durationMs),
    })
  } catch (error) {
    // What it had opened would keep the process alive, and nobody else has it to close.
    await store.close().catch(() => {})
    throw error
  }
  const core = createCore(store)
  const refusals = createRefusalLog(store, metrics)
  const folder = createFolder(core)
  const sweeper = createSweeper(core, metrics, horizonMs, options.sweeps ?? true, folder)
  const classes = new Map<string, PriorityClass>()

  /** The queue knows an account's class from the last step that saw it. */
  function noteClass(account: string, cells: Cells, env: Env): void {
    const cell = cells.get('account') as AccountCell | null | undefined
    const known =
      cell === null || cell === undefined ? undefined : env.policy.active.plans.get(cell.plan)?.class
    if (known === undefined || known === 'standard') {
      if (classes.size > 0) classes.delete(account)
    } else if (classes.size < MAX_CLASSES || classes.has(account)) classes.set(account, known)
  }

  function decided(
    op: 'reserve' | 'extend',
    account: string,
    subject: wire.Subject,
    feature: string,
    answer: wire.DecisionAnswer,
  ): wire.DecisionAnswer {
    count(metrics.decisions as Map<string, number>, `${op} ${answer.outcome} ${answer.reason}`, 1)
    const refused = answer.outcome === 'wait' || answer.outcome === 'deny'
    if (refused && answer.dry_run !== true) refusals.note(account, subject, feature, answer)
    return answer
  }

  async function used(op: ReturnType<typeof intake.settleOp>, caller: Caller): Promise<wire.ChargeAnswer> {
    const context = contextOf(caller)
    const keys: Key[] = ['account', requestKey(op.requestId), ...subjectKeys(op.subject ?? {})]
    const charged = await core.run(
      op.account,
      keys,
      (cells, env) => use(cells, env, context, op),
      classes.get(op.account),
    )
    if (!charged.replayed) {
      for (const [source, amount] of charged.cover) {
        count(
          metrics.chargedMicros as Map<string, number>,
          source.startsWith('grant:') ? 'credits' : (source.split(':')[0] as string),
          amount,
        )
      }
    }
    return present.chargeAnswer(charged)
  }

  /** A read of an account goes through the store's queue as well, so that it shows only what is committed. */
  const shown = (id: string, subject: wire.Subject): Promise<accounts.Shown> =>
    core.run(id, ['account', ...subjectKeys(subject)], (cells, env) =>
      accounts.showAccount(cells, env, contextOf(SYSTEM_CALLER), id, subject),
    )

  const watcher = createWatcher(core, metrics, shown, options.watch)

  async function accountCell(id: string): Promise<AccountCell> {
    const cell = await core.run(intake.accountOrSystem(id), ['account'], (cells) => ({
      result: { ok: cells.get('account') as AccountCell | null },
      writes: [],
      entries: [],
    }))
    if (cell === null) throw accountUnknown(id)
    return cell
  }

  const engine: Engine = {
    metrics,

    async reserve(request, caller = SYSTEM_CALLER) {
      const op = intake.reserveOp(request)
      const context = contextOf(caller)
      const keys: Key[] = ['account', requestKey(op.requestId), ...subjectKeys(op.subject)]
      const step = (cells: Cells, env: Env) => {
        noteClass(op.account, cells, env)
        return reserve(cells, env, context, op)
      }
      const answer = present.decisionAnswer(await core.run(op.account, keys, step, classes.get(op.account)))
      return decided('reserve', op.account, op.subject, op.feature, answer)
    },
    async extend(request, caller = SYSTEM_CALLER) {
      const op = intake.extendOp(request)
      const context = contextOf(caller)
      const keys: Key[] = ['account', requestKey(op.requestId)]
      const told = await core.run(
        op.account,
        keys,
        (cells, env) => extend(cells, env, context, op),
        classes.get(op.account),
      )
      return decided('extend', op.account, told.subject, told.body.feature, present.decisionAnswer(told))
    },
    settle: async (request, caller = SYSTEM_CALLER) => used(intake.settleOp(request, horizonMs), caller),
    record: async (request, caller = SYSTEM_CALLER) => used(intake.recordOp(request, horizonMs), caller),
    async release(request, caller = SYSTEM_CALLER) {
      const op = intake.releaseOp(request)
      const context = contextOf(caller)
      return present.releaseAnswer(
        await core.run(
          op.account,
          ['account', requestKey(op.requestId)],
          (cells, env) => release(cells, env, context, op),
          classes.get(op.account),
        ),
      )
    },
    async refund(account, requestId, request, caller = SYSTEM_CALLER) {
      const op = intake.refundOp(account, requestId, request)
      const context = contextOf(caller)
      return present.refundAnswer(
        await core.run(op.account, ['account', requestKey(op.requestId)], (cells, env) =>
          refund(cells, env, context, op),
        ),
      )
    },

    async createAccount(request, caller = SYSTEM_CALLER) {
      const made = intake.newAccount(request)
      const context = contextOf(caller)
      return present.accountView(
        await core.run(made.id, ['account'], (cells, env) =>
          accounts.createAccount(cells, env, context, made),
        ),
      )
    },
    async account(id, subject, caller = SYSTEM_CALLER) {
      const found = await shown(intake.accountId(id, '/account'), intake.subject(subject))
      return present.accountView(found, caller.subject)
    },
    async patchAccount(id, patch, ifRevision, caller = SYSTEM_CALLER) {
      const change = intake.accountChange(patch)
      const account = intake.accountId(id, '/account')
      const context = contextOf(caller)
      return present.accountView(
        await core.run(account, ['account'], (cells, env) =>
          accounts.patchAccount(cells, env, context, account, change, ifRevision),
        ),
      )
    },
    async overrideLimits(id, request, ifRevision, caller = SYSTEM_CALLER) {
      const op = intake.overrideOp(request)
      const account = intake.accountId(id, '/account')
      const context = contextOf(caller)
      const keys: Key[] =
        op.subject === undefined
          ? ['account']
          : ['account', subjectKey(op.subject.dimension, op.subject.value)]
      return present.accountView(
        await core.run(account, keys, (cells, env) =>
          accounts.overrideLimits(cells, env, context, account, op, ifRevision),
        ),
      )
    },
    async grant(account, request, caller = SYSTEM_CALLER) {
      const op = intake.grantOp(account, request)
      const context = contextOf(caller)
      return present.grantAnswer(
        await core.run(op.account, ['account', grantKey(op.id)], (cells, env) =>
          accounts.grantCredits(cells, env, context, op),
        ),
      )
    },
    async revokeGrant(account, grant, request = {}, caller = SYSTEM_CALLER) {
      const id = intake.accountId(account, '/account')
      const grantId = intake.id(grant, '/grant')
      const reason = request.reason === undefined ? undefined : intake.text(request.reason, '/reason')
      const context = contextOf(caller)
      const step = (cells: Cells, env: Env) => accounts.revokeGrant(cells, env, context, id, grantId, reason)
      const revoked = await core.run(id, ['account', grantKey(grantId)], step)
      return present.grantView(revoked.grant, revoked.nowAt)
    },

    async accounts(query) {
      const { limit, after } = pageOf(query)
      const found: AccountCell[] = []
      for (let from = after; found.length <= limit; ) {
        const page = await store.accounts({
          limit: SCAN_PAGE,
          ...(from === undefined ? {} : { after: from }),
        })
        found.push(...page.filter((cell) => matches(cell, query)))
        const last = page.at(-1)
        if (last === undefined || page.length < SCAN_PAGE) break
        from = last.id
      }
      const list = listOf(
        found,
        limit,
        (cell) => cell.id,
        (cell) => cell.id,
      )
      return {
        items: await Promise.all(
          list.items.map((id) => shown(id, {}).then((one) => present.accountView(one))),
        ),
        next: list.next,
      }
    },
    async grants(account, query) {
      const { limit, after } = pageOf(query)
      const account_ = await shown(intake.accountId(account, '/account'), {})
      const page = await store.cells(account_.account.id, 'grant:', {
        limit: limit + 1,
        ...(after === undefined ? {} : { after }),
      })
      return listOf(
        page,
        limit,
        ({ key }) => key,
        ({ cell }) => present.grantCellView(account_, cell as GrantCell),
      )
    },
    async holds(account, query) {
      const { limit, after } = pageOf(query)
      const { id } = await accountCell(intake.accountId(account, '/account'))
      // Holds come and go while a reader pages: pages are cut by place in the order of end.
      const skip = numberAfter(after) ?? 0
      const page = await store.holds(id, skip + limit + 1)
      const next = page.length > skip + limit ? cursorOf(String(skip + limit)) : null
      return { items: page.slice(skip, skip + limit).map(present.holdView), next }
    },
    async subjects(account, query) {
      const { limit, after } = pageOf(query)
      const id = intake.accountId(account, '/account')
      await accountCell(id)
      const page = await store.cells(id, 'subject:', {
        limit: limit + 1,
        ...(after === undefined ? {} : { after }),
      })
      const list = listOf(
        page,
        limit,
        ({ key }) => key,
        ({ cell }) => cell as SubjectCell,
      )
      const items = list.items.map(async ({ dimension, value }) =>
        subjectView(await shown(id, { [dimension]: value }), dimension, value),
      )
      return { items: await Promise.all(items), next: list.next }
    },
    async entries(account, query) {
      const { limit, after } = pageOf(query)
      const id = intake.accountOrSystem(account)
      await accountCell(id)
      const place = numberAfter(after)
      const newestFirst = query.newestFirst ?? false
      const range = place === undefined ? {} : newestFirst ? { to: place - 1 } : { from: place + 1 }
      const page = await store.entries(id, {
        ...range,
        newestFirst,
        limit: limit + 1,
        ...(query.kinds === undefined ? {} : { kinds: query.kinds }),
      })
      return listOf(
        page,
        limit,
        ({ seq }) => String(seq),
        (entry) => present.entryView(id, entry),
      )
    },
    async journal(query) {
      const { limit, after } = pageOf(query)
      const page = await store.journal(after, limit + 1, query.kinds)
      return listOf(
        page,
        limit,
        ({ position }) => position,
        ({ account, entry }) => present.entryView(account, entry),
      )
    },
    async usage(account, query) {
      const cell = await accountCell(intake.accountId(account, '/account'))
      const { rows, unfolded } = await usageRows(store, cell, query)
      if (unfolded > FOLD_FROM) folder.soon(cell.id)
      return rows
    },
    async explain(account, requestId, caller = SYSTEM_CALLER) {
      const id = intake.accountId(account, '/account')
      await accountCell(id)
      // Whoever was refused a moment ago asks why: the line must not still be waiting for the next flush.
      await refusals.flush()
      return explain(core, id, intake.id(requestId, '/request_id'), caller.subject)
    },
    async explainAnywhere(requestId, caller = SYSTEM_CALLER) {
      const known = await store.accountsOfRequest(intake.id(requestId, '/request_id'), SCAN_PAGE)
      if (known.length === 0) {
        throw new SluiceError('request_unknown', `no account has a request ${requestId}`, {
          path: '/request_id',
          remedy: 'ask with its account: older requests are found only there',
        })
      }
      return Promise.all(known.map((account) => explain(core, account, requestId, caller.subject)))
    },

    watch: (account, watchOptions = {}, caller = SYSTEM_CALLER) =>
      watcher.watch(account, watchOptions, caller.subject),
    request: (account, requestId) => standing.request(core, account, requestId),
    requests: (account, query) => standing.requests(core, account, query),
    note: (account, requestId, text, before) => standing.note(core, account, requestId, text, before),
    openNotes: (query) => standing.openNotes(core, query),

    policy: (version) => system.policyView(core, version),
    policyVersions: (query) => system.policyVersions(core, query),
    checkPolicy: async (text) => system.check(text),
    publishPolicy: (text, ifVersion, caller = SYSTEM_CALLER) => system.publish(core, text, ifVersion, caller),
    createKey: (request, caller = SYSTEM_CALLER) => system.makeKey(core, request, caller),
    keys: (query) => system.listKeys(core, query),
    revokeKey: (id, caller = SYSTEM_CALLER) => system.endKey(core, id, caller),
    authenticate: (secret) => system.authenticate(core, secret),

    async erase(account, dimension, value, caller = SYSTEM_CALLER) {
      const id = intake.accountId(account, '/account')
      await accountCell(id)
      const subject = { dimension: intake.id(dimension, '/dimension'), value: intake.id(value, '/value') }
      await refusals.flush()
      return erase(core, id, subject, caller)
    },
    async repairClock(account, caller = SYSTEM_CALLER) {
      const id = intake.accountId(account, '/account')
      const context = contextOf(caller)
      return present.accountView(
        await core.run(id, ['account'], (cells, env) => accounts.repairClock(cells, env, context, id)),
      )
    },
    acceptClock: () => store.acceptClock(),
    audit: (auditOptions, caller = SYSTEM_CALLER) => auditStore(core, horizonMs, auditOptions, caller),
    retain: (retainOptions, caller = SYSTEM_CALLER) => retain(core, horizonMs, retainOptions, caller),
    auditParts: (means, caller = SYSTEM_CALLER) => partAuditor(core, horizonMs, means, caller),
    sweep: () => sweeper.sweep(),
    tidyUp: () => sweeper.tidyUp(),
    async countHolds() {
      metrics.openHolds = await store.countHolds()
      return metrics.openHolds
    },
    now: () => store.now(),
    health: () => store.health(),
    async close() {
      await watcher.close()
      await sweeper.close()
      await folder.close()
      await refusals.close()
      await store.close()
    },
  }
  if (options.policy !== undefined) await publishWhereNew(engine, options.policy)
  return engine
}

/** How many accounts are looked at in one read when a list is filtered, and how many may know one request id. */
const SCAN_PAGE = 200

const subjectKeys = (subject: wire.Subject): Key[] =>
  Object.entries(subject).map(([dimension, value]) => subjectKey(dimension, value))

async function publishWhereNew(engine: Engine, policy: string | PolicyDocument): Promise<void> {
  await engine.publishPolicy(typeof policy === 'string' ? policy : JSON.stringify(policy, null, 2), undefined)
}

function matches(
  cell: AccountCell,
  query: { readonly q?: string; readonly plan?: string; readonly status?: string },
): boolean {
  if (query.plan !== undefined && cell.plan !== query.plan) return false
  if (query.status !== undefined && cell.status !== query.status) return false
  return (
    query.q === undefined ||
    cell.id.includes(query.q) ||
    Object.values(cell.metadata).some((value) => value.includes(query.q as string))
  )
}

function subjectView(shown: accounts.Shown, dimension: string, value: string): wire.SubjectView {
  return {
    dimension,
    value,
    limits: shown.limits
      .filter((line) => line[2] === dimension)
      .map((line) => present.limit(line, shown.subject)),
    overrides: present.overrideViews(shown.subjects[dimension]?.overrides ?? {}, shown.nowAt),
  }
}

function newMetrics(): EngineMetrics {
  return {
    decisions: new Map(),
    chargedMicros: new Map(),
    commits: {
      count: 0,
      operations: 0,
      entries: 0,
      durationMs: 0,
      sizeBuckets: COMMIT_SIZE_BOUNDS.map(() => 0),
    },
    openHolds: 0,
    streams: 0,
    sweepLagMs: 0,
    refusalsLogged: 0,
    refusalsCounted: 0,
  }
}

function count(counts: Map<string, number>, key: string, by: number): void {
  counts.set(key, (counts.get(key) ?? 0) + by)
}

function countCommit(metrics: EngineMetrics, operations: number, entries: number, durationMs: number): void {
  const { commits } = metrics
  commits.count += 1
  commits.operations += operations
  commits.entries += entries
  commits.durationMs += durationMs
  const bucket = COMMIT_SIZE_BOUNDS.findIndex((bound) => operations <= bound)
  const buckets = commits.sizeBuckets as number[]
  if (bucket >= 0) buckets[bucket] = (buckets[bucket] ?? 0) + 1
}
