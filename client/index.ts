/** The client of Sluice: access to expensive services in three lines, safe when Sluice is away. */
export type * from '../src/wire.ts'
export {
  type Access,
  type AccessOptions,
  AccessRefused,
  type AccessRequest,
  type Granted,
  type Refused,
} from './access.ts'
export { type Client, type ClientOptions, createClient } from './client.ts'
export { SluiceError } from './error.ts'
export type { Growth, Lease, Reported } from './lease.ts'
export type { Unavailability } from './outage.ts'
export { memorySpool, type Spool } from './spool.ts'
export type { CallOptions } from './transport.ts'
export type { WatchOptions } from './watch.ts'
