/** A node in a process of its own: takes calls as messages until it is killed. */
import { SluiceError } from '../../src/errors.ts'
import { type Answered, type Asked, startEngine } from './nodes.ts'

const engine = await startEngine({ url: process.argv[2] as string })
const tell = (answered: Answered): void => {
  process.send?.(answered, () => {})
}

process.on('message', ({ id, call, args }: Asked) => {
  const answer = (engine[call] as (...given: readonly unknown[]) => Promise<unknown>)(...args)
  answer.then(
    (told) => tell({ id, answer: told }),
    (error: unknown) => {
      if (!(error instanceof SluiceError)) throw error
      const { code, message, detail } = error
      const { cause: _, ...told } = detail
      tell({ id, error: { code, message, detail: told } })
    },
  )
})
// The tests have ended, however they did.
process.on('disconnect', () => process.exit())
process.send?.('ready')
