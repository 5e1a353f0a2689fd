/**
 * One suite for every store: each numbered promise of the contract, with an attempt to break it. A store's test calls it
 * in one line. What a store declares in `cannot` is left out, and nothing else.
 */
import { after, describe } from 'node:test'
import { createBench, type OpenFixture } from './conformance/bench.ts'
import { bounded, durable, oneClock, repeatable, serial, whole } from './conformance/promises.ts'
import { journals, pages, refusals } from './conformance/readers.ts'
import { retention } from './conformance/retention.ts'
import { usage } from './conformance/usage.ts'
import { closing, generations, policies, views } from './conformance/views.ts'

export type { Fixture, OpenFixture, Setup } from './conformance/bench.ts'

export function conformance(name: string, open: OpenFixture): void {
  describe(`${name} keeps the contract`, () => {
    const bench = createBench(open)
    after(bench.clear)
    serial(bench)
    whole(bench)
    durable(bench)
    repeatable(bench)
    bounded(bench)
    oneClock(bench)
    views(bench)
    policies(bench)
    pages(bench)
    journals(bench)
    refusals(bench)
    usage(bench)
    generations(bench)
    retention(bench)
    closing(bench)
  })
}
