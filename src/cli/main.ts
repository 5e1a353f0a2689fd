/** The command line: `sluice COMMAND …`. It ends with one line where something went wrong, and with a code of `failure.ts`. */
import { EXIT, failureOf, isCommanderError } from './failure.ts'
import { remark } from './output.ts'
import { createProgram } from './program.ts'

// Whoever reads our output may stop early (`| head`): that is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit(EXIT.ok)
})

try {
  await createProgram().parseAsync()
} catch (error) {
  end(error)
}

function end(error: unknown): void {
  if (isCommanderError(error) && error.code.startsWith('commander.help')) {
    // Asked for with --help, it is the answer; shown because no command was named, it is not.
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage
    return
  }
  if (isCommanderError(error) && error.exitCode === 0) return
  const { line, exit } = failureOf(error)
  remark(line)
  if (process.env.SLUICE_DEBUG !== undefined && error instanceof Error) remark(error.stack ?? '')
  process.exitCode = exit
}
