/**
 * Letting old entries go. First `@system` records it; then each account that has such entries is audited, and what they add up
 * to becomes an entry of its own; only then are they dropped. Whatever is interrupted, an audit is clean: it begins an account
 * behind that entry's state whether or not what came before is still there.
 */
import { SluiceError } from '../errors.ts'
import { type AccountCell, SYSTEM } from '../kernel/cells.ts'
import { recordRetention } from '../kernel/system.ts'
import type { LastBefore, Store } from '../store.ts'
import type { Millis } from '../units.ts'
import { inOrder } from './audit/in-order.ts'
import { beforeOf, partAuditor } from './audit/part.ts'
import { inParts } from './audit.ts'
import type { AuditedAccount, AuditPart, Caller, RetainOptions, RetainReport } from './contract.ts'
import { type Core, contextOf } from './core.ts'
import { instant } from './intake.ts'
import { foldUsage } from './usage/fold.ts'

const PAGE = 200
const AT_ONCE = 2
const AHEAD = 16
/** An account from which someone is erased while it is audited is audited again. */
const MAX_ROUNDS = 4

export async function retain(
  core: Core,
  horizonMs: Millis,
  { before: asked, onAccount }: RetainOptions,
  caller: Caller,
): Promise<RetainReport> {
  const { store } = core
  const before = monthOf(instant(asked, '/before'))
  const { retain: cannot } = store.cannot
  if (cannot !== undefined)
    throw new SluiceError('invalid', cannot, { remedy: 'use PostgreSQL, which lets go of whole months' })
  const now = await store.now()
  if (before > now - horizonMs)
    throw new SluiceError('invalid', `/before: ${dayOf(before)} lies within the horizon of ids`, {
      path: '/before',
      remedy: `name a month that begins no later than ${dayOf(now - horizonMs)}`,
    })
  const context = contextOf(caller)
  await core.run(SYSTEM, ['account'], (cells, env) => recordRetention(cells, env, context, before))
  const sums = { accounts: 0, entries: 0 }
  const audit = partAuditor(core, horizonMs, { retain: before }, caller)
  for (let round = 0, open = true; open; round++) {
    if (round === MAX_ROUNDS) throw moved()
    open = false
    const found = round === 0 ? all(store, before) : uncovered(store, before)
    for await (const part of inOrder(inParts(found, undefined), { atOnce: AT_ONCE, ahead: AHEAD }, audit))
      for (const audited of part) {
        open = true
        refuse(audited, before)
        sums.accounts += Number(round === 0)
        sums.entries += audited.entries
        onAccount?.(audited)
      }
  }
  // Reports reach back further than entries do.
  for await (const { cell } of lastOnes(store, before)) await foldUsage(core, cell.id)
  return { before, ...sums, ...(await store.dropEntriesBefore(before)) }
}

const monthOf = (at: Millis): Millis => {
  const { year, month } = Temporal.Instant.fromEpochMilliseconds(at).toZonedDateTimeISO('UTC')
  return Temporal.ZonedDateTime.from({ year, month, day: 1, timeZone: 'UTC' }).epochMilliseconds
}
const dayOf = (at: Millis): string =>
  Temporal.Instant.fromEpochMilliseconds(at).toZonedDateTimeISO('UTC').toPlainDate().toString()

/** Accounts with entries that are to go. */
async function* all(store: Store, before: Millis): AsyncGenerator<AuditPart[number]> {
  for await (const { cell, seq } of lastOnes(store, before)) yield { ...beforeOf(cell), edge: seq }
}

/** Those whose own journal does not begin behind these entries yet: by its cell, which the first round has held against its chain. */
async function* uncovered(store: Store, before: Millis): AsyncGenerator<AuditPart[number]> {
  for await (const { cell, seq } of lastOnes(store, before))
    if ((cell.retained?.asOf ?? 0) < seq) yield { ...beforeOf(cell), edge: seq }
}

async function* lastOnes(
  store: Store,
  before: Millis,
): AsyncGenerator<{ readonly cell: AccountCell; readonly seq: number }> {
  for (let after: string | undefined; ; ) {
    const page: readonly LastBefore[] = await store.lastBefore(before, {
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
    })
    const cells = await Promise.all(page.map(({ account }) => store.cells(account, 'account', { limit: 1 })))
    for (const [place, { account, seq }] of page.entries()) {
      const cell = cells[place]?.[0]?.cell as AccountCell | undefined
      if (cell === undefined) throw stopped(account, `${account} has entries and no cell`)
      yield { cell, seq }
    }
    if (page.length < PAGE) return
    after = page.at(-1)?.account
  }
}

function refuse({ account, disagreements, found, needs }: AuditedAccount, before: Millis): void {
  if (disagreements > 0)
    throw stopped(
      account,
      `${account} has ${disagreements} disagreements, the first: ${found[0]?.kind}: ${found[0]?.message}`,
    )
  if (needs !== undefined)
    throw new SluiceError(
      'conflict',
      `request ${needs.request} of ${account} is still answered from entry ${needs.seq}, recorded before ${dayOf(before)}: nothing was dropped`,
      {
        path: '/before',
        remedy:
          'name an earlier month, or wait: a closed request is remembered between one and two horizons, an open one until its end',
      },
    )
}

const stopped = (account: string, says: string): SluiceError =>
  new SluiceError('conflict', `${says}: nothing was dropped`, {
    path: `/${account}`,
    remedy: `see it with sluice audit ${account}, and run this again when it is clean`,
  })

const moved = (): SluiceError =>
  new SluiceError(
    'conflict',
    'people were erased from accounts while they were audited: nothing was dropped',
    {
      path: '/before',
      remedy: 'run it again',
    },
  )
