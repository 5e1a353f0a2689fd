/** The node itself: liveness, readiness, metrics, the contract, trust in its clock, and the clock of tests. */

import Type from 'typebox'
import { ERRORS, SluiceError } from '../../errors.ts'
import { ADMIN, type App, type Door, READ } from '../door.ts'
import { METRICS_TYPE } from '../metrics.ts'
import { ClockAnswer, TestClockAnswer } from '../schemas/answers.ts'
import { TestClockRequest } from '../schemas/requests.ts'
import { ref } from '../schemas/shapes.ts'

const Health = Type.Object({ status: Type.String() }, { additionalProperties: false })

export function node(app: App, door: Door): void {
  const { engine, metrics, testClock } = door
  app.get(
    '/healthz',
    {
      schema: { response: { 200: Health } },
      config: {
        call: {
          id: 'live',
          tag: 'node',
          says: 'Whether the process answers',
          roles: [],
          scope: 'open',
          errors: [],
        },
      },
    },
    async () => ({ status: 'ok' }),
  )
  app.get(
    '/readyz',
    {
      schema: { response: { 200: Health } },
      config: {
        call: {
          id: 'ready',
          tag: 'node',
          says: 'Whether the store can be read and written',
          roles: [],
          scope: 'open',
          errors: ['unavailable', 'clock_suspect'],
        },
      },
    },
    async () => {
      const { ready, problem = 'unavailable' } = engine.health()
      if (ready) return { status: 'ready' }
      throw new SluiceError(problem, ERRORS[problem].says, {
        path: '',
        remedy: REMEDIES[problem],
        retryAfterMs: 1000,
      })
    },
  )
  app.get(
    '/metrics',
    {
      config: {
        call: {
          id: 'metrics',
          tag: 'node',
          says: 'Metrics for Prometheus',
          roles: READ,
          scope: 'all',
          errors: [],
        },
        media: [METRICS_TYPE],
      },
    },
    async (_request, reply) => {
      // While the store is away, the other figures are wanted most; this one stays what it was.
      await engine.countHolds().catch(() => {})
      reply.header('content-type', METRICS_TYPE)
      return metrics.render()
    },
  )
  app.get(
    '/openapi.json',
    {
      config: {
        call: { id: 'contract', tag: 'node', says: 'This contract', roles: [], scope: 'open', errors: [] },
      },
    },
    async () => app.swagger(),
  )
  acceptClock(app, door)
  if (testClock !== undefined) setClock(app, door, testClock)
}

const REMEDIES = {
  unavailable: 'Try again later; look at the store.',
  clock_suspect: 'Wait until the clock is right again, or accept it as it is: POST /v1/clock/accept.',
} as const

/** It is what ends `clock_suspect`, so nothing of it goes through the store but the look at a key that the store keeps. */
function acceptClock(app: App, { engine, auth }: Door): void {
  app.post(
    '/v1/clock/accept',
    {
      schema: { response: { 200: ref(ClockAnswer) } },
      config: {
        call: {
          id: 'acceptClock',
          tag: 'node',
          says: 'Take the store’s clock as it stands for the truth, on this node',
          roles: ADMIN,
          scope: 'all',
          errors: [],
        },
      },
    },
    async () => {
      engine.acceptClock()
      // Keys expire by this clock.
      auth.forget()
      return { accepted: true as const }
    },
  )
}

function setClock(app: App, { auth }: Door, clock: NonNullable<Door['testClock']>): void {
  app.put(
    '/v1/test-clock',
    {
      schema: { body: ref(TestClockRequest), response: { 200: ref(TestClockAnswer) } },
      config: {
        call: {
          id: 'setClock',
          tag: 'node',
          says: 'Set the clock of tests',
          roles: ADMIN,
          scope: 'all',
          errors: [],
        },
      },
    },
    async ({ body }) => {
      clock.set(body.now)
      // Keys expire by this clock too.
      auth.forget()
      return { now: clock.now() }
    },
  )
}
