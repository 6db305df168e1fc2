/*
 * What a laptop has and QEMU's machines lack: an AC adapter, a battery, a lid, a sleep button and a thermal zone. "iasl" compiles it, QEMU
 * adds it to the tables of its firmware, and the kernel's own drivers (ac, battery, button, thermal) find the devices and evaluate the methods.
 *
 * The test sets what they say through the second serial port. A byte of 0x80 and more names a device, the next one, below 0x80, is its
 * state, and the device notifies the kernel. The port's interrupt is that of a Generic Event Device, so that all of this takes as long as it
 * takes an embedded controller.
 */
DefinitionBlock ("", "SSDT", 2, "COSI", "LAPTOP", 1)
{
    External (\_SB.CPUS.C000, DeviceObj)

    Scope (\_SB)
    {
        Name (ACON, 1)   // the AC adapter is plugged in
        Name (LEFT, 50)  // of the battery, in percent
        Name (OPEN, 1)   // the lid is
        Name (TEMP, 40)  // of the thermal zone, in degrees Celsius
        Name (NEXT, 0)   // whose state comes next

        Device (HOST)
        {
            Name (_HID, "ACPI0013")
            Name (_CRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 3 }
            })

            OperationRegion (PORT, SystemIO, 0x2F8, 8)
            Field (PORT, ByteAcc, NoLock, Preserve)
            {
                DATA, 8,
                IENA, 8,
                Offset (4),
                MCTL, 8,
                LSTA, 8
            }

            // The kernel's driver of serial ports has had a look at the port, and left it without interrupts. It does not touch it any more
            // while nobody opens it. So this is called when the node is up: by what the drivers of adapters and lids ask first.
            Method (LSTN)
            {
                MCTL = 0x08 // OUT2: interrupts leave the port
                IENA = 0x01 // one for each byte
            }

            Method (_EVT, 1, Serialized)
            {
                While (LSTA & 0x01)
                {
                    TAKE (DATA)
                }
            }

            Method (TAKE, 1, Serialized)
            {
                If (Arg0 >= 0x80)
                {
                    NEXT = Arg0
                    Return
                }
                Switch (ToInteger (NEXT))
                {
                    Case (0x80)
                    {
                        ACON = Arg0
                        Notify (\_SB.ADP0, 0x80)
                        Notify (\_SB.BAT0, 0x80)
                    }
                    Case (0x81)
                    {
                        LEFT = Arg0
                        Notify (\_SB.BAT0, 0x80)
                    }
                    Case (0x82)
                    {
                        LEFT = Arg0 // a battery that says nothing when it gets emptier
                    }
                    Case (0x83)
                    {
                        OPEN = Arg0
                        Notify (\_SB.LID0, 0x80)
                    }
                    Case (0x84)
                    {
                        Notify (\_SB.SLPB, 0x80)
                    }
                    Case (0x85)
                    {
                        TEMP = Arg0
                        Notify (\_TZ.THM0, 0x80)
                    }
                }
            }
        }

        Device (ADP0)
        {
            Name (_HID, "ACPI0003")
            Name (_PCL, Package () { \_SB })
            Method (_STA) { Return (0x0F) }
            Method (_PSR)
            {
                \_SB.HOST.LSTN ()
                Return (ACON)
            }
        }

        Device (BAT0)
        {
            Name (_HID, EisaId ("PNP0C0A"))
            Name (_UID, 1)
            Name (_PCL, Package () { \_SB })
            Method (_STA) { Return (0x1F) }

            // In mW and mWh: 10 Wh when it is full, and low at 1 Wh.
            Name (_BIF, Package ()
            {
                0, 10000, 10000, 1, 12000, 1000, 300, 100, 100, "COSI-10", "4711", "LION", "COSI"
            })
            Name (STAT, Package () { 0, 1000, 0, 12000 })
            Method (_BST, 0, Serialized)
            {
                If (ACON == 0)
                {
                    Local0 = 0x01 // discharging
                }
                ElseIf (LEFT < 100)
                {
                    Local0 = 0x02 // charging
                }
                Else
                {
                    Local0 = 0
                }
                If (LEFT <= 3)
                {
                    Local0 |= 0x04 // critical
                }
                STAT [0] = Local0
                STAT [2] = LEFT * 100
                Return (STAT)
            }

            // The kernel calls the battery low when it is below what it sets here.
            Method (_BTP, 1) {}
        }

        Device (LID0)
        {
            Name (_HID, EisaId ("PNP0C0D"))
            Method (_LID)
            {
                \_SB.HOST.LSTN ()
                Return (OPEN)
            }
        }

        Device (SLPB)
        {
            Name (_HID, EisaId ("PNP0C0E"))
        }
    }

    Scope (\_TZ)
    {
        ThermalZone (THM0)
        {
            Method (_TMP) { Return (2732 + (\_SB.TEMP * 10)) }
            Name (_PSV, 3432) // 70 °C
            Name (_HOT, 3632) // 90 °C
            Name (_CRT, 3782) // 105 °C
            Name (_PSL, Package () { \_SB.CPUS.C000 })
            Name (_TC1, 1)
            Name (_TC2, 1)
            Name (_TSP, 600) // a minute
        }
    }
}
