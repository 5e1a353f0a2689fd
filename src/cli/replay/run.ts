/** One replay: each request of a trace is reserved, runs for a while, and is settled with what it really used. */
import type { Engine } from '../../engine.ts'
import { SluiceError } from '../../errors.ts'
import type { Millis } from '../../units.ts'
import type { DecisionAnswer } from '../../wire.ts'
import type { Owner } from './assign.ts'
import type { Estimator } from './estimate.ts'
import { createAgenda, type Happening, type Timeline } from './schedule.ts'
import { countCharge, countDecision, countUp, createTally, type Pointer, type Tally } from './tally.ts'
import type { TraceRow } from './trace.ts'

export interface Replay {
  readonly engine: Engine
  readonly rows: AsyncIterator<TraceRow>
  readonly timeline: Timeline
  readonly owner: (client: string | undefined) => Owner
  /** Quantities that are known only at the end, with how they are guessed. */
  readonly estimators: ReadonlyMap<string, Estimator>
  readonly feature: string
  readonly attributes: Readonly<Record<string, string>>
  /** CU that each account has bought before its first request. */
  readonly credits: string | undefined
  /** A wait of at most this length is waited for, once. */
  readonly patienceMs: Millis
  readonly runs: RunLength
  readonly onProgress?: (tally: Tally, now: Millis) => void
}

/** How long a request runs: so much, and as long as its output takes. */
export interface RunLength {
  readonly baseMs: Millis
  readonly perSecond: number
}

/** These say that Sluice cannot go on, and so neither can the replay. */
const FATAL = [
  'unavailable',
  'internal',
  'closing',
  'clock_suspect',
  'clock_behind',
  'format_newer',
  'policy_missing',
]

/** At one instant what ends comes before what begins, in the order of the trace. */
const ORDER = { settle: 0, retry: 1, arrive: 2 }
type Phase = keyof typeof ORDER

export async function replay(options: Replay): Promise<Tally> {
  const { engine, timeline, rows, estimators } = options
  const tally = createTally()
  const agenda = createAgenda()
  const openAccount = accountOpener(engine, options.credits)

  const arrival = async (): Promise<Happening | undefined> => {
    const { value: row, done } = await rows.next()
    if (done) return undefined
    tally.requests += 1
    tally.firstAt = Math.min(tally.firstAt, row.at)
    tally.lastAt = row.at
    const owner = options.owner(row.client)
    tally.accounts.add(owner.account)
    return happening(row, 'arrive', row.at, () => ask(row, owner, false))
  }

  function happening(row: TraceRow, phase: Phase, at: Millis, run: () => Promise<void>): Happening {
    return { at, order: ORDER[phase] * 2 ** 40 + row.number, run: () => run().catch(countError) }
  }

  function countError(error: unknown): void {
    if (!(error instanceof SluiceError) || FATAL.includes(error.code)) throw error
    countUp(tally.errors, error.code)
  }

  async function ask(row: TraceRow, owner: Owner, again: boolean): Promise<void> {
    const request = `r${row.number}`
    const opened = openAccount(owner)
    const askedAt = performance.now()
    // Both are under way: operations of one account take effect in the order in which they were sent.
    const [answer] = await Promise.all([reserve(options, request, row, owner), opened])
    tally.latencies.push(performance.now() - askedAt)
    tally.operations += 1
    options.onProgress?.(tally, timeline.now())
    const pointer = { account: owner.account, request }
    if (answer.outcome === 'wait' && !again && honours(tally.waits, answer, options.patienceMs)) {
      const at = answer.decided_at + (answer.retry_after_ms ?? 0)
      return agenda.add(happening(row, 'retry', at, () => ask(row, owner, true)))
    }
    countDecision(tally, pointer, answer)
    if (answer.outcome === 'wait' || answer.outcome === 'deny') return
    if (again) tally.waits.admitted += 1
    const endsAt = answer.decided_at + runMs(row, options.runs)
    agenda.add(happening(row, 'settle', endsAt, () => settle(row, pointer, answer)))
  }

  async function settle(row: TraceRow, pointer: Pointer, reserved: DecisionAnswer): Promise<void> {
    for (const [quantity, estimator] of estimators) estimator.learn(row.quantities[quantity] ?? 0)
    const charged = await engine.settle({
      request_id: pointer.request,
      account: pointer.account,
      usage: row.quantities,
      duration_ms: timeline.now() - reserved.decided_at,
    })
    tally.operations += 1
    countCharge(tally, pointer, reserved, charged)
    options.onProgress?.(tally, timeline.now())
  }

  await timeline.run(agenda, arrival)
  return tally
}

/** Asks for what a request is guessed to use. */
function reserve(
  { engine, estimators, feature, attributes }: Replay,
  request: string,
  { quantities }: TraceRow,
  { account, subject }: Owner,
): Promise<DecisionAnswer> {
  const estimate = { ...quantities }
  for (const [quantity, estimator] of estimators)
    estimate[quantity] = estimator.guess(quantities[quantity] ?? 0)
  return engine.reserve({ request_id: request, account, subject, feature, attributes, estimate })
}

/** Whether a wait is waited for: where it is told how long, and that is not too long. */
function honours(
  waits: Tally['waits'],
  { retry_after_ms: waitMs }: DecisionAnswer,
  patienceMs: Millis,
): boolean {
  waits.told += 1
  if (waitMs === undefined) return false
  waits.lengths.push(waitMs)
  if (waitMs > patienceMs) return false
  waits.honoured += 1
  return true
}

/** Makes each account before its first request, with the credits that it has bought. */
function accountOpener(engine: Engine, credits: string | undefined) {
  const known = new Set<string>()
  return async ({ account, plan }: Owner): Promise<void> => {
    if (known.has(account)) return
    known.add(account)
    const created = engine.createAccount({ id: account, plan: plan.name })
    const bought =
      credits === undefined
        ? undefined
        : engine.grant(account, { id: 'bought', kind: 'purchased', amount: credits })
    await Promise.all([created, bought])
  }
}

/** What is estimated is what takes long: prompts are read fast, output is written token by token. */
function runMs({ quantities }: TraceRow, { baseMs, perSecond }: RunLength): Millis {
  const produced = quantities.output_tokens ?? 0
  return Math.ceil(baseMs + (1000 * produced) / perSecond)
}
