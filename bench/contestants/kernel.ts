/** Decisions of the kernel alone: three guards, two windows, three grants, every line of the explanation. */
import type { AccountCell, SubjectCell } from '../../src/kernel/cells.ts'
import { decide, type Question } from '../../src/kernel/decide.ts'
import type { Plan } from '../../src/kernel/plan.ts'
import { rateLine } from '../../src/ledger/price.ts'
import { compilePolicy } from '../../src/policy/compile.ts'
import { perform } from '../contestant.ts'
import { PLAN, POLICY } from '../workload.ts'

const NOW = Date.UTC(2026, 5, 15, 12)
const HOUR = 3_600_000
const CU = 1_000_000

await perform(async () => {
  const policy = compilePolicy(1, POLICY)
  const plan = policy.plans.get(PLAN) as Plan
  const card = policy.features.get('sora.video')?.card
  const line = card === undefined ? undefined : rateLine(card, {})
  const questions = Array.from({ length: 64 }, (_, place): Question => {
    // Every second request needs more than its windows have left, and is split over them and all grants.
    const split = place % 2 === 1
    return {
      nowAt: NOW + place,
      plan,
      feature: 'sora.video',
      subject: { user: `user-${place}` },
      account: account(place),
      subjects: { user: subject(place, split ? 49_999_990 : 20) },
      cost: 25 * CU,
      floor: undefined,
      quantities: { seconds: 10 * CU },
      line,
      least: undefined,
      base: undefined,
    }
  })
  const look = (): number => {
    let lines = 0
    for (const question of questions) {
      const verdict = decide(question)
      if (verdict.outcome !== 'allow') throw new Error(`refused: ${verdict.reason}`)
      lines += verdict.limits.length
    }
    return lines
  }
  if (look() !== questions.length * 8) throw new Error('a line of the explanation is missing')
  return {
    async run(seconds) {
      const startedAt = performance.now()
      const until = startedAt + seconds * 1000
      let rounds = 0
      while (performance.now() < until) {
        look()
        rounds++
      }
      return { perSecond: (rounds * questions.length) / ((performance.now() - startedAt) / 1000) }
    },
    close: async () => {},
  }
})

function account(place: number): AccountCell {
  const grant = { amount: 10 * CU, remaining: 9 * CU, held: CU, priority: 100, startsAt: NOW - HOUR }
  return {
    v: 1,
    id: `account-${place}`,
    plan: PLAN,
    status: 'active',
    zone: 'Europe/Berlin',
    anchorAt: NOW - 1000 * HOUR,
    anchored: false,
    metadata: {},
    createdAt: NOW - 1000 * HOUR,
    meaning: '',
    revision: 1,
    lastAt: NOW - 1,
    head: { seq: 100, hash: 'a'.repeat(64) },
    counters: { windows: {}, rates: {}, concurrency: {} },
    grants: [
      { ...grant, id: 'plan:1', kind: 'plan', expiresAt: NOW + 300 * HOUR },
      { ...grant, id: 'welcome', kind: 'promo', expiresAt: NOW + 100 * HOUR },
      { ...grant, id: 'bought', kind: 'purchased', expiresAt: null },
    ],
    recurrences: { 'plus/plan': { grantId: 'plan:1', nextAt: NOW + 300 * HOUR } },
    issuedCount: 1,
    books: { issued: -30 * CU, charged: 3 * CU, expired: 0, revoked: 0, overage: 0, absorbed: 0, debt: 0 },
    subjectCounts: { user: 1 },
    overrides: {},
    lowSteps: 0,
    openHolds: 1,
    dueAt: NOW + HOUR,
  }
}

/** `used`, in CU, stands in the window of five hours. */
function subject(place: number, used: number): SubjectCell {
  const window = { startAt: NOW - HOUR, used: used * CU, held: 2 * CU }
  return {
    v: 1,
    dimension: 'user',
    value: `user-${place}`,
    counters: {
      windows: {
        'included/5h': { ...window, endAt: NOW + 4 * HOUR },
        'included/7d': { ...window, endAt: NOW + 167 * HOUR },
        'monthly-budget': { ...window, startAt: NOW - 340 * HOUR, endAt: NOW + 380 * HOUR },
      },
      rates: { requests: { level: 3, drained: 17, at: NOW - 20 } },
      concurrency: { 'in-flight': [NOW + HOUR, NOW + 2 * HOUR] },
    },
    overrides: {},
  }
}
