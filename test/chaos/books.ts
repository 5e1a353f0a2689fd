/** What must be so after any trouble: the books hold exactly what callers were told, and not once more. */
import assert from 'node:assert/strict'
import type { Engine } from '../../src/engine.ts'
import type { Random } from '../../src/sim/random.ts'
import type { DecisionAnswer, EntryView, Share } from '../../src/wire.ts'
import { record, release, reserve, settle, type Told } from './load.ts'
import type { Node } from './nodes.ts'
import { LIMITS } from './policy.ts'

/** Of all that was told, so many are asked for again, and so many explained; the journal is read to its end. */
const REPEATED = 400
const EXPLAINED = 25

/** `reader` is a node that took no part in it. Ends with every request closed. */
export async function expectExactBooks(
  accounts: readonly string[],
  told: readonly Told[],
  nodes: readonly Node[],
  reader: Engine,
  random: Random,
): Promise<void> {
  await Promise.all(some(told, REPEATED, random).map((one) => expectSameAgain(random.pick(nodes), one)))
  await Promise.all(some(told, EXPLAINED, random).map((one) => expectStory(random.pick(nodes), one)))
  await expectEntries(accounts, told, reader)

  const open = told.filter((one) => isOpen(one))
  await Promise.all(
    open.map(async (one) => {
      one.settled = await settle(random.pick(nodes), one)
      assert.equal(one.settled.replayed, false, `${one.requestId} was settled by nobody before`)
    }),
  )
  await expectEntries(accounts, told, reader)
  await Promise.all(open.map((one) => expectSameAgain(random.pick(nodes), one)))
}

/** As many of them, from a place somewhere on. */
function some<T>(all: readonly T[], count: number, random: Random): readonly T[] {
  const from = random.int(0, all.length)
  return [...all.slice(from), ...all.slice(0, from)].slice(0, count)
}

const isOpen = ({ reserved, settled, released }: Told): boolean =>
  reserved !== undefined && settled === undefined && released === undefined

/** The same call gets the same answer, but for what tells of now. */
async function expectSameAgain(node: Node, one: Told): Promise<void> {
  const { reserved, settled, released, recorded } = one
  const again = { replayed: true }
  if (reserved) assert.deepEqual(apart(await reserve(node, one)), { ...apart(reserved), ...again })
  if (settled) assert.deepEqual(await settle(node, one), { ...settled, ...again })
  if (released) assert.deepEqual(await release(node, one), { ...released, ...again })
  if (recorded) assert.deepEqual(await record(node, one), { ...recorded, ...again })
}

function apart({ state: _, ...answer }: DecisionAnswer): Omit<DecisionAnswer, 'state'> {
  return answer
}

async function expectStory(node: Node, one: Told): Promise<void> {
  const story = await node.explain(one.account, one.requestId)
  assert.equal(story.charged, (one.settled ?? one.recorded)?.charged ?? '0', one.requestId)
  assert.equal(story.held, isOpen(one) ? one.cost : '0', one.requestId)
}

async function expectEntries(
  accounts: readonly string[],
  told: readonly Told[],
  reader: Engine,
): Promise<void> {
  for (const account of accounts) {
    const own = told.filter((one) => one.account === account)
    const entries = await entriesOf(reader, account)
    const idsOf = (kind: EntryView['kind'], what?: string): string[] =>
      entries
        .filter(({ kind: is, body }) => is === kind && (what === undefined || body.what === what))
        .map(({ request }) => request as string)
    const idsTold = (has: (one: Told) => unknown): string[] =>
      own.filter(has).map(({ requestId }) => requestId)
    // As lists: what stands there twice is found as well.
    expectSame(
      idsOf('decision'),
      idsTold(({ reserved }) => reserved),
      `decisions of ${account}`,
    )
    expectSame(
      idsOf('charge'),
      idsTold(({ settled, recorded }) => settled ?? recorded),
      `charges of ${account}`,
    )
    expectSame(
      idsOf('change', 'hold_closed'),
      idsTold(({ released }) => released),
      `releases of ${account}`,
    )
    for (const one of own) {
      if (one.settled) assert.equal(one.settled.charged, one.used)
      if (one.recorded) assert.equal(one.recorded.charged, one.cost)
    }
    expectWithinLimits(entries, account)
    const view = await reader.account(account)
    const open = own.filter(isOpen)
    assert.equal(view.open_holds, open.length, `open holds of ${account}`)
    const creditsHeld = open.flatMap(({ reserved }) => reserved?.from ?? [])
    assert.equal(Number(view.credits.held), sumOf(creditsHeld, 'grant:'), `credits held of ${account}`)
  }
  const { disagreements } = await reader.audit({ accounts })
  assert.equal(disagreements, 0)
}

function expectSame(found: readonly string[], expected: readonly string[], what: string): void {
  assert.deepEqual(found.toSorted(), expected.toSorted(), what)
}

/** Counted anew from the journal, line by line. Costs are quarters, which add up without a rest. */
function expectWithinLimits(entries: readonly EntryView[], account: string): void {
  let inFlight = 0
  const taken = { 'allowance:': 0, overage: 0, absorbed: 0, debt: 0 }
  for (const { kind, body } of entries) {
    if (kind === 'decision') inFlight++
    else if (body.what === 'hold_closed' || (kind === 'usage' && body.op === 'settle')) inFlight--
    assert.ok(inFlight <= LIMITS.inFlight, `${account} has ${inFlight} requests in flight`)
    if (kind !== 'charge') continue
    for (const source of ['allowance:', 'overage', 'absorbed', 'debt'] as const)
      taken[source] += sumOf(body.cover as Share[], source)
  }
  assert.ok(
    taken['allowance:'] <= LIMITS.allowance,
    `${account} took ${taken['allowance:']} of its allowance`,
  )
  assert.ok(taken.overage <= LIMITS.overage, `${account} took ${taken.overage} of its overage`)
  assert.deepEqual([taken.absorbed, taken.debt], [0, 0], account)
}

const sumOf = (shares: readonly Share[], source: string): number =>
  shares.reduce((sum, share) => sum + (share.source.startsWith(source) ? Number(share.amount) : 0), 0)

async function entriesOf(reader: Engine, account: string): Promise<EntryView[]> {
  const entries: EntryView[] = []
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page = await reader.entries(account, { limit: 200, ...(cursor === undefined ? {} : { cursor }) })
    entries.push(...page.items)
    cursor = page.next
  }
  return entries
}
