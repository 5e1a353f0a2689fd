/**
 * Generated histories against an auditor with books of its own. 2,000 of them, 100,000 with `SLUICE_LONG=1`. Where one
 * fails, its seed and path are printed: `SLUICE_SEED=<seed> [SLUICE_PATH=<path>] node --test src/sim/histories.test.ts`
 * runs the same ones again.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Disagreement } from './disagreement.ts'
import { randomFrom } from './random.ts'
import { runHistory } from './run.ts'
import { smallerHistories } from './shrink.ts'
import { type History, randomHistory, type Step } from './workload.ts'

const LONG = process.env.SLUICE_LONG === '1'
const COUNT = Number(process.env.SLUICE_HISTORIES ?? (LONG ? 100_000 : 2_000))
const MOST_STEPS = 35
/** The short run is the same each time, so that a change is judged by what it changes; the long run goes where none has been. */
const SEED = Number(process.env.SLUICE_SEED ?? (LONG ? Date.now() & 0x7fffffff : 20_261_121))

/** Histories come from a seed, as everywhere in the simulation, and shrink as what they are: lists of steps and plans. */
class Histories extends fc.Arbitrary<History> {
  override generate(random: fc.Random): fc.Value<History> {
    const seed = random.nextInt(0, 0x7fffffff)
    const length = random.nextInt(5, MOST_STEPS)
    return new fc.Value(randomHistory(randomFrom(seed), length), undefined)
  }
  override canShrinkWithoutContext(_value: unknown): _value is History {
    return false
  }
  override shrink(history: History): fc.Stream<fc.Value<History>> {
    return fc.stream(smallerHistories(history)).map((smaller) => new fc.Value(smaller, undefined))
  }
}

test(`${COUNT} histories agree with an auditor’s naive books at every step`, async (t) => {
  t.diagnostic(`SLUICE_SEED=${SEED}`)
  const path = process.env.SLUICE_PATH
  const details = await fc.check(
    fc.asyncProperty(new Histories(), async (history) => runHistory(history)),
    {
      seed: SEED,
      numRuns: COUNT,
      ...(path === undefined ? {} : { path }),
    },
  )
  if (details.failed) assert.fail(report(details))
})

function report(details: fc.RunDetails<[History]>): string {
  const [history] = details.counterexample ?? []
  const { errorInstance: error } = details
  const why =
    error instanceof Disagreement ? error.message : String((error as Error | undefined)?.stack ?? error)
  return [
    `${why}`,
    `after ${details.numRuns} histories and ${details.numShrinks} cuts; run it again with`,
    `  SLUICE_SEED=${details.seed} SLUICE_PATH=${details.counterexamplePath}`,
    ...(history === undefined ? [] : storyOf(history)),
  ].join('\n')
}

function storyOf({ startAt, account, policy, steps }: History): string[] {
  const line = (step: Step, place: number): string => `  ${place + 1}. ${JSON.stringify(step)}`
  return [
    `from ${new Date(startAt).toISOString()}, account ${JSON.stringify(account)}`,
    `policy ${JSON.stringify(policy.plans, null, 1).replaceAll(/\n\s+/g, ' ')}`,
    ...steps.map(line),
  ]
}
