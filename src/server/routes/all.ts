/** All routes, in the order of the reference page. */
import type { App, Door } from '../door.ts'
import { accounts } from './accounts.ts'
import { batch } from './batch.ts'
import { books } from './books.ts'
import { decisions } from './decisions.ts'
import { grants } from './grants.ts'
import { keys } from './keys.ts'
import { metering } from './metering.ts'
import { node } from './node.ts'
import { policy } from './policy.ts'
import { requests } from './requests.ts'

export function routes(app: App, door: Door): void {
  for (const add of [decisions, metering, batch, accounts, grants, requests, books, policy, keys, node])
    add(app, door)
}
