/** One thread of an audit: a store of its own, and the parts that the main thread hands it, two at a time. */
import { parentPort, workerData } from 'node:worker_threads'
import { failureOf } from '../failure.ts'
import { OPERATOR } from '../http.ts'
import { parseStore } from '../stores.ts'
import { withEngine } from '../target.ts'
import type { Answer, Order, Setting } from './threads.ts'

const { store, access, means } = workerData as Setting
const port = parentPort
if (port === null) throw new Error('this runs in a thread of an audit')

await withEngine(parseStore(store), access, async (engine) => {
  const audit = engine.auditParts(means, OPERATOR)
  await new Promise<void>((resolve) => {
    port.on('message', async (order: Order) => {
      if ('close' in order) {
        port.close()
        return resolve()
      }
      const answer: Answer = await audit(order.part).then(
        (audited) => ({ place: order.place, audited }),
        (error) => ({ place: order.place, failure: failureOf(error) }),
      )
      port.postMessage(answer)
    })
    port.postMessage({ ready: true } satisfies Answer)
  })
}).catch((error) => {
  port.postMessage({ failure: failureOf(error) } satisfies Answer)
  port.close()
})
