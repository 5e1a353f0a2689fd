/** All routes, in the order of the reference page. */
import type { App, Door } from '../door.ts'
import { accounts } from './accounts.ts'
import { batch } from './batch.ts'
import { books } from './books.ts'
import { decisions } from './decisions.ts'
import { events } from './events.ts'
import { grants } from './grants.ts'
import { keys } from './keys.ts'
import { metering } from './metering.ts'
import { node } from './node.ts'
import { policy } from './policy.ts'
import { requests } from './requests.ts'

/** Each resource is a plugin, so that the contract has its calls in this order, also where a plugin has one inside. */
export function routes(app: App, door: Door): void {
  for (const add of [
    decisions,
    metering,
    batch,
    accounts,
    grants,
    requests,
    books,
    events,
    policy,
    keys,
    node,
  ]) {
    app.register(async (inner) => add(inner as App, door))
  }
}
