/** What the routes share: the types of the app, and what each call says about itself. */

import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'
import type { Logger } from 'pino'
import type { Caller, Engine } from '../engine.ts'
import type { ErrorCode } from '../errors.ts'
import type { Key } from '../keyring.ts'
import type { Millis } from '../units.ts'
import type { Role } from '../wire.ts'
import type { Auth, Scope } from './auth.ts'
import type { Tale } from './log.ts'
import type { Metrics } from './metrics.ts'

export type App = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression<RawServerDefault>,
  RawReplyDefaultExpression<RawServerDefault>,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

/** A clock that a caller sets, in place of the store's. */
export interface TestClock {
  now(): Millis
  set(now: Millis): void
}

/** What a route needs to serve its calls. */
export interface Door {
  readonly engine: Engine
  readonly auth: Auth
  readonly metrics: Metrics
  readonly testClock: TestClock | undefined
  readonly heartbeatMs: number
  readonly log: Logger | undefined
}

/** What a call says about itself: who may make it, and what the contract tells of it. */
export interface Call {
  /** Unique: `operationId`, and the name of its example. */
  readonly id: string
  readonly tag: 'decide' | 'meter' | 'accounts' | 'credits' | 'books' | 'policy' | 'keys' | 'node'
  readonly says: string
  readonly roles: readonly Role[]
  readonly scope: Scope
  /** Whether it honours `If-Match`, or needs it. */
  readonly ifMatch?: 'may' | 'must'
  /** What the header of an answer carries: an entity tag, or the limits of a decision. */
  readonly carries?: 'etag' | 'limits'
  /** Beside those that any call of its kind may answer. */
  readonly errors: readonly ErrorCode[]
}

export const ADMIN: readonly Role[] = ['admin']
export const METER: readonly Role[] = ['admin', 'meter']
export const READ: readonly Role[] = ['admin', 'read']
export const ANY: readonly Role[] = ['admin', 'meter', 'read']
/** What whoever calls through the gateway may see of their own account as well. */
export const READ_OWN: readonly Role[] = [...READ, 'call']
export const ANY_OWN: readonly Role[] = [...ANY, 'call']

/** On whose behalf the engine acts: the actor is the key's id, bound to what the key is bound to. */
export const callerOf = (key: Key): Caller => ({ actor: key.id, subject: key.subject })

declare module 'fastify' {
  interface FastifyContextConfig {
    call?: Call
    /** What the contract tells of the body, where that is more than what is checked at once; or its media types. */
    body?: object
    media?: readonly string[]
  }
  interface FastifyRequest {
    /** The key behind the call, which the guard has set; absent only where no key is needed. */
    key: Key
    tale: Tale
  }
}
