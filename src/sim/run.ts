/** Runs a history on an engine of its own, with an auditor beside it. */

import type { Engine } from '../engine/contract.ts'
import { createEngine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import { memoryStore } from '../store/memory.ts'
import type * as wire from '../wire.ts'
import { type Auditor, createAuditor } from './auditor.ts'
import { settableClock } from './clock.ts'
import { Disagreement, type Told } from './disagreement.ts'
import { ACCOUNT, type History, type Step } from './workload.ts'

/** Throws `Disagreement`, with the step it happened at, where the engine and the books differ. */
export async function runHistory(history: History): Promise<void> {
  const clock = settableClock(history.startAt)
  const store = memoryStore({ now: clock.now, strict: true })
  const engine = await createEngine({
    store,
    policy: history.policy,
    sweeps: false,
    horizonMs: 4_000 * 86_400_000,
  })
  const auditor = createAuditor(history.policy, history.startAt)
  let subject: wire.Subject = { user: 'u1', team: 't1' }
  let place = -1
  try {
    const request = { id: ACCOUNT, ...history.account }
    auditor.made(request, await engine.createAccount(request))
    for (const [index, step] of history.steps.entries()) {
      place = index
      if ('subject' in step && Object.keys(step.subject ?? {}).length === 2)
        subject = step.subject as wire.Subject
      if (step.op === 'wait') clock.advance(step.ms)
      else if (step.op === 'until') clock.set(Math.max(clock.now(), step.at))
      else await takeStep(engine, auditor, step)
      auditor.passed(clock.now())
      auditor.viewed(await engine.account(ACCOUNT, subject), subject)
    }
  } catch (error) {
    if (!(error instanceof Disagreement)) throw error
    const step =
      place < 0 ? 'making the account' : `step ${place + 1}, ${JSON.stringify(history.steps[place])}`
    throw new Disagreement(`${error.message} — at ${step}`, { cause: error })
  } finally {
    await engine.close()
  }
}

async function told<T>(answer: Promise<T>): Promise<Told<T>> {
  try {
    return { answer: await answer }
  } catch (error) {
    if (!(error instanceof SluiceError) || error.code === 'internal') throw error
    return { code: error.code, first: error.detail.first }
  }
}

async function takeStep(engine: Engine, auditor: Auditor, step: Step): Promise<void> {
  const account = ACCOUNT
  switch (step.op) {
    case 'reserve': {
      const { op: _, ...rest } = step
      const request = { ...rest, account }
      return auditor.reserved(request, await told(engine.reserve(request)))
    }
    case 'extend': {
      const { op: _, ...rest } = step
      const request = { ...rest, account }
      return auditor.extended(request, await told(engine.extend(request)))
    }
    case 'settle': {
      const { op: _, ...rest } = step
      const request = { ...rest, account }
      return auditor.settled(request, await told(engine.settle(request)))
    }
    case 'record': {
      const { op: _, ...rest } = step
      const request = { ...rest, account }
      return auditor.recorded(request, await told(engine.record(request)))
    }
    case 'release': {
      const { op: _, ...rest } = step
      const request = { ...rest, account }
      return auditor.released(request, await told(engine.release(request)))
    }
    case 'refund': {
      const { op: _, request_id, ...request } = step
      return auditor.refunded(request_id, request, await told(engine.refund(account, request_id, request)))
    }
    case 'grant': {
      const { op: _, ...request } = step
      return auditor.granted(request, await told(engine.grant(account, request)))
    }
    case 'revoke':
      return auditor.revoked(step.id, await told(engine.revokeGrant(account, step.id)))
    case 'patch': {
      const { op: _, ...patch } = step
      return auditor.patched(patch, await told(engine.patchAccount(account, patch)))
    }
    case 'override': {
      const { op: _, ...request } = step
      return auditor.overridden(request, await told(engine.overrideLimits(account, request)))
    }
    case 'publish': {
      // A change of policy is not asked to reach back: what was due before it is booked before it.
      await engine.tidyUp()
      auditor.tidied()
      const { version } = await engine.publishPolicy(JSON.stringify(step.policy), undefined)
      auditor.published(step.policy)
      // Any write would do: it brings the account under the new policy.
      const touch = { account, request_id: `published-${version}` }
      return auditor.released(touch, await told(engine.release(touch)))
    }
    case 'sweep':
      await engine.sweep()
  }
}
