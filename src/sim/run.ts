/** Runs a history on an engine of its own, with an auditor beside it that is asked after each step. */

import type { Engine } from '../engine/contract.ts'
import { createEngine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import { memoryStore } from '../store/memory.ts'
import type { Store } from '../store.ts'
import type * as wire from '../wire.ts'
import { followOnTheSpot, followWithCredits, isForeseen } from './advice.ts'
import { type Auditor, createAuditor } from './auditor.ts'
import { type SettableClock, settableClock } from './clock.ts'
import { Disagreement, expectSame, type Told } from './disagreement.ts'
import { checkJournal } from './journal.ts'
import { type Books, openRequests } from './naive-books.ts'
import { spread } from './spread.ts'
import { ACCOUNT, type History, type Step } from './workload.ts'

const SUBJECTS: readonly wire.Subject[] = [
  { user: 'u1', team: 't1' },
  { user: 'u2', team: 't2' },
  { user: 'u3', team: 't1' },
]
const HORIZON_MS = 4_000 * 86_400_000

interface Stage {
  readonly engine: Engine
  readonly store: Store
  readonly clock: SettableClock
}

/** Opens empty stores of one state, one for each node. */
export type OpenStores = (now: () => number) => Promise<readonly Store[]>
const inMemory: OpenStores = async (now) => [memoryStore({ now, strict: true })]

async function setUp(
  { startAt, policy, account }: History,
  open: OpenStores,
): Promise<Stage & { readonly made: wire.AccountView }> {
  const clock = settableClock(startAt)
  const stores = await open(clock.now)
  const engines: Engine[] = []
  for (const store of stores)
    engines.push(await createEngine({ store, policy, sweeps: false, horizonMs: HORIZON_MS }))
  const engine = spread(engines)
  const made = await engine.createAccount({ id: ACCOUNT, ...account })
  return { clock, store: stores[0] as Store, engine, made }
}

/** Throws `Disagreement`, with the step it happened at, where the engine and the books differ. */
export async function runHistory(history: History, open = inMemory): Promise<void> {
  const stage = await setUp(history, open)
  const auditor = createAuditor(history.policy, history.startAt)
  let refused: { readonly place: number; readonly answer: wire.DecisionAnswer } | undefined
  let subject = SUBJECTS[0] as wire.Subject
  let place = -1
  try {
    auditor.made({ id: ACCOUNT, ...history.account }, stage.made)
    for (const [index, step] of history.steps.entries()) {
      place = index
      if ('subject' in step && Object.keys(step.subject ?? {}).length === 2)
        subject = step.subject as wire.Subject
      const told = await takeStep(stage, auditor, step)
      if (told !== undefined && 'answer' in told && advisesMore(auditor.books(), told.answer))
        refused = { place, answer: told.answer as wire.DecisionAnswer }
      await look(stage, auditor, step.op === 'patch' || step.op === 'publish' ? SUBJECTS : [subject])
    }
    place = history.steps.length
    await finish(stage, auditor)
    if (refused !== undefined) {
      place = refused.place
      await follow(history, auditorAt(history, refused.place), refused.place, refused.answer)
    }
  } catch (error) {
    if (!(error instanceof Disagreement)) throw error
    const step = history.steps[place]
    const where =
      place < 0
        ? 'making the account'
        : step === undefined
          ? 'the end'
          : `step ${place + 1}, ${JSON.stringify(step)}`
    throw new Disagreement(`${error.message} — at ${where}`, { cause: error })
  } finally {
    await stage.engine.close()
  }
}

/** A refusal whose advice cannot be tried on the spot: it asks for credits, or is an extend's. */
function advisesMore(books: Books, answer: object): boolean {
  const { outcome, unblock, state } = answer as wire.DecisionAnswer
  if ((outcome !== 'deny' && outcome !== 'wait') || unblock === undefined) return false
  if (!isForeseen(books, unblock)) return false
  return unblock.credits !== undefined || (state === 'open' && unblock.wait_until !== undefined)
}

/** The account as its users see it. */
async function look(
  { engine, clock }: Stage,
  auditor: Auditor,
  subjects: readonly wire.Subject[],
): Promise<void> {
  auditor.passed(clock.now())
  for (const subject of subjects) auditor.viewed(await engine.account(ACCOUNT, subject), subject)
}

/** All holds are given back; then nothing is held anywhere, and the account's own entries add up. */
async function finish(stage: Stage, auditor: Auditor): Promise<void> {
  const { engine, store } = stage
  // The last one is unknown: it writes what time alone has brought, even where nothing is open.
  for (const request_id of [...openRequests(auditor.books()).map(({ id }) => id), 'at-the-end']) {
    const release = { account: ACCOUNT, request_id }
    auditor.released(release, await told(engine.release(release)))
  }
  await look(stage, auditor, SUBJECTS)
  for (const subject of SUBJECTS) expectNothingHeld(await engine.account(ACCOUNT, subject))
  const entries: wire.EntryView[] = []
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page = await engine.entries(ACCOUNT, { limit: 200, ...(cursor === undefined ? {} : { cursor }) })
    entries.push(...page.items)
    cursor = page.next
  }
  checkJournal(auditor.books(), entries)
  const found: string[] = []
  const report = await engine.audit({
    onDisagreement: ({ kind, message }) => void found.push(`${kind}: ${message}`),
  })
  expectSame([report.disagreements, found], [0, []], 'the audit')
  expectSame((await store.holds(ACCOUNT, 10)).length, 0, 'open holds')
}

function expectNothingHeld({ credits, limits, allowances, overage, open_holds }: wire.AccountView): void {
  const windows = allowances.flatMap((one) => one.windows)
  const held = [...limits, ...windows, ...credits.grants, ...(overage === null ? [] : [overage])].map(
    (one) => one.held,
  )
  expectSame(held.filter((amount) => amount !== '0').concat(credits.held), ['0'], 'held after all exits')
  expectSame(open_holds, 0, 'open holds')
}

export async function told<T>(answer: Promise<T>): Promise<Told<T>> {
  try {
    return { answer: await answer }
  } catch (error) {
    if (!(error instanceof SluiceError) || error.code === 'internal') throw error
    return { code: error.code, first: error.detail.first }
  }
}

type Audited = Told<object> | undefined

async function takeStep(stage: Stage, auditor: Auditor, step: Step): Promise<Audited> {
  const { engine, clock, store } = stage
  if (step.op === 'wait') return void clock.advance(step.ms)
  if (step.op === 'until') return void clock.set(Math.max(clock.now(), step.at))
  if (step.op === 'publish') return publish(engine, auditor, step)
  if (step.op === 'sweep') return void (await engine.sweep())
  const tried =
    step.op === 'reserve' ? await told(engine.reserve({ ...step_(step), dry_run: true })) : undefined
  const before = await kept(store)
  const answer = await call(engine, step)
  if (changedNothing(answer))
    expectSame(await kept(store), before, 'what a refusal or a repeat leaves behind')
  audit(auditor, step, answer)
  if (step.op === 'reserve' && 'answer' in answer) {
    const decision = answer.answer as wire.DecisionAnswer
    if (tried !== undefined) expectSameDecision(tried, decision)
    await followOnTheSpot(engine, clock, auditor.books(), step_(step), decision)
  }
  return answer
}

/** A step as the request that it makes. */
function step_<T extends { readonly op: string }>({
  op: _,
  ...step
}: T): Omit<T, 'op'> & { readonly account: string } {
  return { ...step, account: ACCOUNT }
}

function call(engine: Engine, step: Step): Promise<Told<object>> {
  switch (step.op) {
    case 'reserve':
      return told(engine.reserve(step_(step)))
    case 'extend':
      return told(engine.extend(step_(step)))
    case 'settle':
      return told(engine.settle(step_(step)))
    case 'record':
      return told(engine.record(step_(step)))
    case 'release':
      return told(engine.release(step_(step)))
    case 'refund': {
      const { op: _, request_id, ...request } = step
      return told(engine.refund(ACCOUNT, request_id, request))
    }
    case 'grant': {
      const { op: _, ...request } = step
      return told(engine.grant(ACCOUNT, request))
    }
    case 'revoke':
      return told(engine.revokeGrant(ACCOUNT, step.id))
    case 'patch': {
      const { op: _, ...patch } = step
      return told(engine.patchAccount(ACCOUNT, patch))
    }
    case 'override': {
      const { op: _, ...request } = step
      return told(engine.overrideLimits(ACCOUNT, request))
    }
    default:
      throw new Error(`${step.op} is no call`)
  }
}

function audit(auditor: Auditor, step: Step, answer: Told<object>): void {
  const as = <T>(): Told<T> => answer as Told<T>
  switch (step.op) {
    case 'reserve':
      return auditor.reserved(step_(step), as())
    case 'extend':
      return auditor.extended(step_(step), as())
    case 'settle':
      return auditor.settled(step_(step), as())
    case 'record':
      return auditor.recorded(step_(step), as())
    case 'release':
      return auditor.released(step_(step), as())
    case 'refund': {
      const { op: _, request_id, ...request } = step
      return auditor.refunded(request_id, request, as())
    }
    case 'grant': {
      const { op: _, ...request } = step
      return auditor.granted(request, as())
    }
    case 'revoke':
      return auditor.revoked(step.id, as())
    case 'patch': {
      const { op: _, ...patch } = step
      return auditor.patched(patch, as())
    }
    case 'override': {
      const { op: _, ...request } = step
      return auditor.overridden(request, as())
    }
  }
}

async function publish(
  engine: Engine,
  auditor: Auditor,
  step: Extract<Step, { op: 'publish' }>,
): Promise<undefined> {
  // A change of policy is not asked to reach back: what was due before it is booked before it.
  await engine.tidyUp()
  auditor.tidied()
  const { version } = await engine.publishPolicy(JSON.stringify(step.policy), undefined)
  auditor.published(step.policy)
  // Any write would do: it brings the account under the new policy.
  const touch = { account: ACCOUNT, request_id: `published-${version}` }
  auditor.released(touch, await told(engine.release(touch)))
}

/** All that is kept of the account: cells are the same objects as long as nobody has written them. */
async function kept(store: Store): Promise<unknown> {
  const cells = await store.cells(ACCOUNT, '', { limit: 100_000 })
  const [last] = await store.entries(ACCOUNT, { newestFirst: true, limit: 1 })
  return { cells: cells.map(({ key, cell }) => [key, cell]), last: last?.hash }
}

function changedNothing(told: Told<object>): boolean {
  if ('code' in told) return true
  const { replayed, outcome } = told.answer as Partial<wire.DecisionAnswer>
  return replayed === true || outcome === 'deny' || outcome === 'wait'
}

/** Asking without doing says what doing says. */
function expectSameDecision(tried: Told<wire.DecisionAnswer>, done: wire.DecisionAnswer): void {
  if (done.replayed || 'code' in tried) return
  const { dry_run: _, state: __, ...one } = tried.answer
  const { dry_run: ___, state: ____, ...other } = done
  expectSame(other, one, 'a decision that was tried first')
}

// --- advice that has to be followed on a copy

/** Lives through a history up to a step, without an auditor's questions. */
async function copyOf(history: History, upTo: number): Promise<Stage> {
  const stage = await setUp(history, inMemory)
  for (const step of history.steps.slice(0, upTo)) {
    if (step.op === 'wait') stage.clock.advance(step.ms)
    else if (step.op === 'until') stage.clock.set(Math.max(stage.clock.now(), step.at))
    else if (step.op === 'sweep') await stage.engine.sweep()
    else if (step.op === 'publish') {
      await stage.engine.tidyUp()
      const { version } = await stage.engine.publishPolicy(JSON.stringify(step.policy), undefined)
      await stage.engine.release({ account: ACCOUNT, request_id: `published-${version}` })
    } else await call(stage.engine, step)
  }
  return stage
}

/** The policy and plan in force at a step are all that following advice needs to know. */
function auditorAt(
  history: History,
  place: number,
): { readonly policy: History['policy']; readonly plan: string } {
  let { policy } = history
  let { plan } = history.account
  for (const step of history.steps.slice(0, place)) {
    if (step.op === 'publish') policy = step.policy
    if (step.op === 'patch') plan = step.plan ?? plan
  }
  return { policy, plan }
}

async function follow(
  history: History,
  inForce: { readonly policy: History['policy']; readonly plan: string },
  place: number,
  { unblock }: wire.DecisionAnswer,
): Promise<void> {
  const { engine, clock } = await copyOf(history, place)
  const step = history.steps[place] as Step
  try {
    await followWithCredits(engine, clock, inForce, unblock ?? {}, async () => {
      const again = await call(engine, step)
      if ('code' in again) throw new Disagreement(`following advice ends in ${again.code}`)
      return again.answer as wire.DecisionAnswer
    })
  } finally {
    await engine.close()
  }
}
