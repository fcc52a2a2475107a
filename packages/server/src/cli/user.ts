/** `latchkey user list | show | lock | unlock | deactivate | reset-password`, and `session revoke`. */
import type { Command } from 'commander'
import { adminCommand } from './admin-command.ts'
import { plural, printable, table, time } from './output.ts'
import { addPageOptions, moreLine, pageOf } from './page-options.ts'
import { askPassword, readPassword } from './read-password.ts'
import { databaseName, runAdmin } from './run-admin.ts'

const NAME = [['<NAME>', 'the user name, or the whole user ID']] as const

export function userCommands(): Command[] {
  return [list(), show(), lock(), unlock(), deactivate(), resetPassword()]
}

function list(): Command {
  return adminCommand('user list', {
    description: 'List the users.',
    options: addPageOptions,
    help: 'Users in the order of their IDs, with the time of their registration (UTC) and the number of devices.',
    examples: ['user list', "user list --limit 1000 --after '@m:example.org'", 'user list --json'],
    input: (_args, command) => pageOf(command),
    print: ({ users, next }) =>
      table(
        ['CREATED', 'STATE', 'DEVICES', 'USER'],
        users.map(({ createdTs, state, devices, userId }) => [
          time(createdTs),
          state,
          String(devices),
          userId,
        ]),
      ) + moreLine(next),
  })
}

function show(): Command {
  return adminCommand('user show', {
    description: 'Show a user and their devices.',
    arguments: NAME,
    help: 'The state of an account, and its devices.',
    examples: ['user show alice', 'user show @alice:example.org --json'],
    input: ([name = '']) => ({ name }),
    print: ({ userId, state, createdTs, lockedTs, devices }) =>
      `${userId}: ${state}${lockedTs === null ? '' : ` since ${time(lockedTs)}`}, created ${time(createdTs)}, ` +
      `${plural(devices.length, 'device')}\n${devices.length === 0 ? '' : deviceTable(devices)}`,
  })
}

type ShownDevice = {
  readonly deviceId: string
  readonly displayName: string | null
  readonly lastSeenTs: number
  readonly lastSeenIp: string | null
}

/** The name comes last, because it is the only cell that may be cut. */
export function deviceTable(devices: readonly ShownDevice[]): string {
  const rows = devices.map(({ deviceId, displayName, lastSeenTs, lastSeenIp }) => [
    time(lastSeenTs),
    lastSeenIp ?? '-',
    deviceId,
    displayName ?? '',
  ])
  return table(['LAST SEEN', 'ADDRESS', 'DEVICE', 'NAME'], rows, 'cut')
}

function lock(): Command {
  return adminCommand('user lock', {
    description: 'Lock a user out, without loss of data.',
    arguments: NAME,
    help: `Every request of the user is refused with M_USER_LOCKED, except logout, and waiting syncs end. Devices and
keys stay: others may still send messages, which wait. "user unlock" makes the same sessions valid again.`,
    examples: ['user lock alice'],
    input: ([name = '']) => ({ name }),
    print: ({ userId, changed }, config) =>
      changed
        ? `Locked ${userId} in ${databaseName(config)}.\n`
        : `${userId} was locked already in ${databaseName(config)}.\n`,
  })
}

function unlock(): Command {
  return adminCommand('user unlock', {
    description: 'Unlock a user.',
    arguments: NAME,
    help: 'The sessions from before the lock are valid again.',
    examples: ['user unlock alice'],
    input: ([name = '']) => ({ name }),
    print: ({ userId, changed }, config) =>
      changed
        ? `Unlocked ${userId} in ${databaseName(config)}.\n`
        : `${userId} was not locked in ${databaseName(config)}.\n`,
  })
}

function deactivate(): Command {
  return adminCommand('user deactivate', {
    description: 'End an account for good.',
    arguments: NAME,
    options: (command) => command.requiredOption('--yes', 'confirm: this cannot be undone'),
    help: `Removes the devices, the keys and the data of the account. Its name is never given again. To keep an account
for later, lock it.`,
    examples: ['user deactivate alice --yes'],
    input: ([name = '']) => ({ name }),
    print: ({ userId, changed, removedDevices }, config) =>
      changed
        ? `Deactivated ${userId} in ${databaseName(config)}; removed ${plural(removedDevices, 'device')}.\n`
        : `${userId} was deactivated already in ${databaseName(config)}.\n`,
  })
}

function resetPassword(): Command {
  return adminCommand('user reset-password', {
    description: 'Set a new password for a user.',
    arguments: NAME,
    options: (command) =>
      command
        .option('--password-stdin', 'read the password from standard input')
        .option('--keep-sessions', 'do not remove the devices of the user'),
    help: `Prompts for the password twice; --password-stdin reads it from standard input instead. Removes all devices of
the user, so that anyone who knew the old password is logged out; --keep-sessions does not.`,
    examples: [
      'user reset-password alice',
      'user reset-password alice --keep-sessions',
      'user reset-password alice --password-stdin < password.txt',
    ],
    async input([name = ''], command, config) {
      const options = command.opts<{ passwordStdin?: boolean; keepSessions?: boolean }>()
      // Checks the name before the password prompt.
      const { userId } = await runAdmin(config, 'user show', { name })
      const password = options.passwordStdin ? await readPassword() : await askPassword(userId)
      return { name, password, keepSessions: options.keepSessions ?? false }
    },
    print: ({ userId, removedDevices }, config) =>
      `Set the password of ${userId} in ${databaseName(config)}; removed ${plural(removedDevices, 'device')}.\n`,
  })
}

export function sessionRevokeCommand(): Command {
  return adminCommand('session revoke', {
    description: 'Log all devices of a user out.',
    arguments: NAME,
    help: 'As "log out everywhere" of a client: removes all devices of the user with their keys. The password stays.',
    examples: ['session revoke alice'],
    input: ([name = '']) => ({ name }),
    print: ({ userId, removedDevices }, config) =>
      `Removed ${plural(removedDevices, 'device')} of ${userId} in ${databaseName(config)}.\n`,
  })
}

export function deviceCommands(): Command[] {
  const listDevices = adminCommand('user show', {
    description: "List a user's devices.",
    arguments: NAME,
    help: 'Devices in the order of their IDs, with the time (UTC) and the address of their last request.',
    examples: ['device list alice', 'device list alice --json'],
    input: ([name = '']) => ({ name }),
    print: ({ devices }) => deviceTable(devices),
  }).name('list')
  return [listDevices, deleteDevices()]
}

function deleteDevices(): Command {
  return adminCommand('device delete', {
    description: "Remove some of a user's devices.",
    arguments: [...NAME, ['<DEVICE...>', 'device IDs']],
    help: 'Logs the devices out and removes their keys. A device that does not exist is reported and is not an error.',
    examples: ['device delete alice PHONE', 'device delete alice JLAFKJWSCS QBUAZIFURK'],
    input: ([name = '', ...deviceIds]) => ({ name, deviceIds }),
    print: ({ userId, removed, unknown }, config) =>
      `Removed ${plural(removed.length, 'device')} of ${userId} in ${databaseName(config)}.\n` +
      unknown.map((id) => `${userId} has no device ${printable(id)}.\n`).join(''),
  })
}
